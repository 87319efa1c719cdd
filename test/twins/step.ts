/** One command line that both programs are given. */

/** An image of a pair, by its name in both folders. */
export interface PairedImage {
  readonly name: string;
  readonly format: string;
  /** Whether ours may be stored in another way. */
  readonly isStoredOtherwise?: boolean;
}

/** What a disk is when something is done to it. */
export interface DiskFacts {
  readonly bytes: number;
  readonly clusterBytes: number;
  readonly backing: string | undefined;
  readonly refcountBits: number;
  /** Whether there are no clusters of zeroes. */
  readonly isVersion2: boolean;
  readonly hasSnapshots: boolean;
  readonly hasCompressed: boolean;
  readonly hasBitmaps: boolean;
  /** Whether ours may be stored in another way by now. */
  readonly isStoredOtherwise: boolean;
}

/** What is done to both images of a pair. */
export interface Step {
  /** By what figures are added up. */
  readonly operation: string;
  /** A subcommand and its arguments; of `io`, those of qemu-io. */
  readonly words: readonly string[];
  /** Images that it makes or changes beside the disk. */
  readonly touched?: readonly PairedImage[];
  /** Whether ours may be stored in another way from then on. */
  readonly isStoredOtherwise?: (disk: DiskFacts) => boolean;
  /** Whether what bitmaps record of our disk may be other ranges from then on. */
  readonly isRecordedOtherwise?: (disk: DiskFacts) => boolean;
  /** Where it is not done, since programs are known to do it differently. */
  readonly isLeftOut?: (disk: DiskFacts) => boolean;
  /** Whether it only tells something: then both programs are asked about the same files, and say the same. */
  readonly isReport?: boolean;
}
