/** What checking an image of any format takes and gives. */
import type { AbortSignalLike } from '../abort-signal.js';

/** One finding, or one step of a repair. */
export interface Finding {
  readonly kind: 'corruption' | 'leak' | 'error' | 'repair' | 'note';
  /** What it is about, by a name that stays the same. */
  readonly topic: string;
  /** In qemu-img's words. */
  readonly message: string;
  /** What it means for the user's data, in one sentence. */
  readonly explanation: string;
}

/** Numbers of findings by kind, as a report has them. */
export interface FindingCounts {
  readonly checkErrors: number;
  readonly corruptions: number;
  readonly leaks: number;
  /** What a repair has put right, and is not among the others any more. */
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
}

/** Why a check was given up: damage that leaves no way on, or a table that makes no sense. */
export type CheckFailure = 'EIO' | 'EINVAL' | 'EFBIG';

/** The outcome of a check. */
export interface CheckReport extends FindingCounts {
  readonly filename: string;
  readonly format: string;
  readonly findings: readonly Finding[];
  /** Why the check was given up before its end, as the system names such an error. */
  readonly failure: CheckFailure | undefined;
  /** Host offset in bytes after the last cluster in use. */
  readonly imageEndOffset: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** How an image is checked. */
export interface CheckOptions {
  readonly signal?: AbortSignalLike | undefined;
  readonly onProgress?:
    ((progress: { readonly doneBytes: number; readonly totalBytes: number }) => void) | undefined;
  /** Told each finding when it is made. */
  readonly onFinding?: ((finding: Finding) => void) | undefined;
  /** How many threads read tables where there are many, each with a queue of its own; 1 if left out. */
  readonly queues?: number | undefined;
  /** `leaks` frees what nothing refers to; `all` puts right whatever can be. */
  readonly repair?: 'leaks' | 'all' | undefined;
}
