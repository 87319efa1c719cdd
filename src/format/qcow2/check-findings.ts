/** What a check has found so far: findings in qemu-img's words and order, and its statistics. */

/** Findings kept word by word; beyond them only counts go on. */
const maxKeptFindings = 100_000;

/** One finding. */
export interface Finding {
  readonly kind: 'corruption' | 'leak' | 'error';
  readonly message: string;
}

/** The outcome of a check. */
export interface CheckReport {
  readonly filename: string;
  readonly format: 'qcow2';
  readonly checkErrors: number;
  readonly corruptions: number;
  readonly leaks: number;
  readonly findings: readonly Finding[];
  /** Host offset in bytes after the last cluster in use. */
  readonly imageEndOffset: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** Collects findings and statistics during a check. */
export class Findings {
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;
  readonly #findings: Finding[] = [];
  readonly #copied: string[] = [];
  #errors = 0;
  #corruptions = 0;
  #leaks = 0;

  corruption(message: string): void {
    this.#corruptions++;
    this.#keep({ kind: 'corruption', message });
  }

  leak(message: string): void {
    this.#leaks++;
    this.#keep({ kind: 'leak', message });
  }

  /** Something that kept the check from looking. */
  error(message: string): void {
    this.#errors++;
    this.#keep({ kind: 'error', message });
  }

  /** A COPIED flag that contradicts the reference count; reported after the counts themselves. */
  copiedCorruption(message: string): void {
    this.#corruptions++;
    if (this.#copied.length < maxKeptFindings) this.#copied.push(message);
  }

  appendCopiedFindings(): void {
    for (const message of this.#copied.splice(0)) this.#keep({ kind: 'corruption', message });
  }

  report(facts: {
    readonly filename: string;
    readonly imageEndOffset: number;
    readonly totalClusters: number;
  }): CheckReport {
    return {
      ...facts,
      format: 'qcow2',
      checkErrors: this.#errors,
      corruptions: this.#corruptions,
      leaks: this.#leaks,
      findings: this.#findings,
      allocatedClusters: this.allocatedClusters,
      fragmentedClusters: this.fragmentedClusters,
      compressedClusters: this.compressedClusters,
    };
  }

  #keep(finding: Finding): void {
    if (this.#findings.length < maxKeptFindings) this.#findings.push(finding);
  }
}

/** A 64-bit table entry in hexadecimal, from its halves. */
export function entryHex(high: number, low: number): string {
  return high === 0 ? low.toString(16) : high.toString(16) + low.toString(16).padStart(8, '0');
}
