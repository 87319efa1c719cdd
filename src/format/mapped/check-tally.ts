/** What a check of an image of a mapping has found so far: findings, and counts as a report has them. */
import { maxKeptFindings } from '../../limits.js';
import type { CheckFailure, CheckReport, Finding } from '../check.js';

/** See the file's comment. */
export class CheckTally<Topic extends string> {
  /** Why the check is given up, if it is. */
  failure: CheckFailure | undefined;
  /** Of the disk. */
  totalClusters = 0;
  allocatedClusters = 0;
  /** Allocated ones that do not follow the one before in the file. */
  fragmentedClusters = 0;
  /** Host offset in bytes after the last cluster in use; 0 where the format does not tell. */
  imageEndOffset = 0;
  readonly #counts = {
    checkErrors: 0,
    corruptions: 0,
    leaks: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
  };
  readonly #findings: Finding[] = [];
  readonly #explanations: Readonly<Record<Topic, string>>;
  readonly #tell: ((finding: Finding) => void) | undefined;

  /** @param explanations what each topic means for the user's data, in one sentence */
  constructor(
    explanations: Readonly<Record<Topic, string>>,
    tell: ((finding: Finding) => void) | undefined,
  ) {
    this.#explanations = explanations;
    this.#tell = tell;
  }

  /** Whether nothing is wrong that was not put right. */
  get isSound(): boolean {
    return this.#counts.corruptions === 0 && this.#counts.checkErrors === 0;
  }

  /** @param count of clusters, or whatever is damaged, that the one finding is about */
  corruption(topic: Topic, message: string, count = 1): void {
    this.#counts.corruptions += count;
    this.#keep('corruption', topic, message);
  }

  /** Damage that is being put right. */
  repair(topic: Topic, message: string): void {
    this.#counts.corruptionsFixed += 1;
    this.#keep('repair', topic, message);
  }

  /** @param count of clusters */
  leak(topic: Topic, message: string, count: number): void {
    this.#counts.leaks += count;
    this.#keep('leak', topic, message);
  }

  /** Leaks that are being given back. @param count of clusters */
  repairLeak(topic: Topic, message: string, count: number): void {
    this.#counts.leaksFixed += count;
    this.#keep('repair', topic, message);
  }

  /** Something that kept the check from looking. */
  error(topic: Topic, message: string): void {
    this.#counts.checkErrors += 1;
    this.#keep('error', topic, message);
  }

  report(filename: string, format: string): CheckReport {
    return {
      ...this.#counts,
      filename,
      format,
      findings: this.#findings,
      failure: this.failure,
      imageEndOffset: this.imageEndOffset,
      totalClusters: this.totalClusters,
      allocatedClusters: this.allocatedClusters,
      fragmentedClusters: this.fragmentedClusters,
      compressedClusters: 0,
    };
  }

  /** A table of nonsense has a finding in every entry: those beyond the limit are counted, not told. */
  #keep(kind: Finding['kind'], topic: Topic, message: string): void {
    if (this.#findings.length >= maxKeptFindings) return;
    const finding = { kind, topic, message, explanation: this.#explanations[topic] };
    this.#findings.push(finding);
    this.#tell?.(finding);
  }
}
