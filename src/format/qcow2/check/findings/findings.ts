/** What a check has found and repaired so far: findings in qemu-img's words and order, and counts. */
import { maxKeptFindings } from '../../../../limits.js';
import type { CheckFailure, CheckReport, Finding } from '../../../check.js';
import { type FindingTopic, explanations } from './explanations.js';

/** Ends a check whose findings so far leave no way on. */
export class CheckGivenUp extends Error {
  constructor(readonly failure: CheckFailure) {
    super(`The check was given up: ${failure}`);
  }
}

/** Collects findings and statistics during a check. */
export class Findings {
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;
  counts = { checkErrors: 0, corruptions: 0, leaks: 0, corruptionsFixed: 0, leaksFixed: 0 };
  /** Damage of the snapshot table, which is put right last. */
  snapshots = { corruptions: 0, corruptionsFixed: 0 };
  readonly #findings: Finding[] = [];
  readonly #tell: ((finding: Finding) => void) | undefined;

  constructor(tell: ((finding: Finding) => void) | undefined) {
    this.#tell = tell;
  }

  corruption(topic: FindingTopic, message: string): void {
    this.counts.corruptions++;
    this.#keep('corruption', topic, message);
  }

  leak(message: string): void {
    this.counts.leaks++;
    this.#keep('leak', 'leak', message);
  }

  /** Something that kept the check from looking, or from repairing. */
  error(topic: FindingTopic, message: string): void {
    this.counts.checkErrors++;
    this.#keep('error', topic, message);
  }

  /** Something that is put right; whoever does it counts it. */
  repair(topic: FindingTopic, message: string): void {
    this.#keep('repair', topic, message);
  }

  /** A line that counts for nothing by itself. */
  note(topic: FindingTopic, message: string): void {
    this.#keep('note', topic, message);
  }

  /** Damage of the snapshot table; with `repairing` it is put right later. */
  snapshotCorruption(topic: FindingTopic, message: string, repairing: boolean): void {
    this.snapshots.corruptions++;
    this.#keep(repairing ? 'repair' : 'corruption', topic, message);
  }

  /** Forgets the statistics, before what is allocated is counted once more. */
  forgetStatistics(): void {
    this.allocatedClusters = 0;
    this.fragmentedClusters = 0;
    this.compressedClusters = 0;
  }

  report(facts: {
    readonly filename: string;
    readonly failure: CheckFailure | undefined;
    readonly imageEndOffset: number;
    readonly totalClusters: number;
  }): CheckReport {
    const { counts, snapshots } = this;
    return {
      ...facts,
      ...counts,
      corruptions: counts.corruptions + snapshots.corruptions,
      corruptionsFixed: counts.corruptionsFixed + snapshots.corruptionsFixed,
      format: 'qcow2',
      findings: this.#findings,
      allocatedClusters: this.allocatedClusters,
      fragmentedClusters: this.fragmentedClusters,
      compressedClusters: this.compressedClusters,
    };
  }

  #keep(kind: Finding['kind'], topic: FindingTopic, message: string): void {
    const finding = { kind, topic, message, explanation: explanations[topic] };
    // Beyond those, each is still told as it comes.
    if (this.#findings.length < maxKeptFindings) this.#findings.push(finding);
    this.#tell?.(finding);
  }
}

/** A 64-bit table entry in hexadecimal, from its halves. */
export function entryHex(high: number, low: number): string {
  return high === 0 ? low.toString(16) : high.toString(16) + low.toString(16).padStart(8, '0');
}
