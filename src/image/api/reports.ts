/** What an image reports of itself: how its disk is stored, facts, and what a check finds. */
import type { FormatName } from '../../format/registry.js';
import type { FormatSpecificInfo } from '../../format/specific.js';
import type { LongOperationOptions } from './long-operation.js';

export type { BitmapExtent } from '../../format/driver.js';
export type { BitmapState } from '../../format/facts.js';
export type {
  BitmapInfo,
  EncryptionInfo,
  EncryptionSlotInfo,
  FormatSpecificInfo,
  LuksInfo,
  Qcow2Info,
  VmdkFacts,
} from '../../format/specific.js';

/** Formats of an image file, by QEMU's names; any other name may be that of one that was registered. */
export type ImageFormat = FormatName | (string & {});

/** How a stretch of the virtual disk is stored, as `qemu-img map` reports it. */
export interface Extent {
  /** Guest offset in bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** 0 for this image, n for the n-th backing file below it. */
  readonly depth: number;
  /** Whether the image at `depth` holds an allocation for the range. */
  readonly present: boolean;
  /** Whether the range reads as zeroes. */
  readonly zero: boolean;
  /** Whether the range is stored as data. */
  readonly data: boolean;
  readonly compressed: boolean;
  /** Host offset in bytes in `filename`, where the range lies there uncompressed. */
  readonly offset?: number;
  /** The file that holds `offset`. */
  readonly filename?: string;
}

/** An internal snapshot as `info` reports it. */
export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  readonly vmStateSize: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockSeconds: number;
  readonly vmClockNanoseconds: number;
  /** Guest instructions executed, where the snapshot records it. */
  readonly icount?: number;
}

/** A file that an image is spread over, besides its own. */
export interface ChildFileInfo {
  /** QEMU's name of it: `data-file`, `extents.0`. */
  readonly role: string;
  readonly filename: string;
  /** Length in bytes (the end of it, holes included). */
  readonly fileLength: number;
  /** Bytes it occupies; undefined where the host does not say. */
  readonly actualSize: number | undefined;
  readonly blockDevice: boolean;
  /** QEMU's name of the driver of what it lies in: `file`, `host_device`, `https`. */
  readonly protocol: string;
}

/** Facts about one image, without its backing chain. */
export interface ImageInfo {
  readonly filename: string;
  /** By which it can be opened again, where the file's name alone does not say what it is: `json:{…}`. */
  readonly fullName?: string;
  readonly format: ImageFormat;
  /** Bytes. */
  readonly virtualSize: number;
  /** Length of the image file in bytes (the end of it, holes included). */
  readonly fileLength: number;
  /** Bytes the image file occupies; undefined where the host does not say. */
  readonly actualSize: number | undefined;
  /** Bytes of the extents that the file system was asked for, where it was. */
  readonly extentSizeHint?: number;
  readonly clusterSize?: number;
  /** Bytes of the parts in which clusters are allocated, where these are smaller. */
  readonly subclusterSize?: number;
  /** Guest offset behind the disk from which on the state of a machine is kept, where one can be. */
  readonly vmStateOffset?: number;
  /** Whether it was not closed cleanly, for formats of which QEMU tells that. */
  readonly dirtyFlag?: boolean;
  /** Whether the file is a block device. */
  readonly blockDevice: boolean;
  /** QEMU's name of the driver of what it lies in: `file`, `host_device`, `https`. */
  readonly protocol: string;
  readonly encrypted?: boolean;
  /** As stored in the image. */
  readonly backingFilename?: string;
  /** Resolved against the image's folder. */
  readonly fullBackingFilename?: string;
  readonly backingFormat?: string;
  readonly snapshots: readonly SnapshotInfo[];
  /** Persistent bitmaps; left out for images that can have none. */
  readonly bitmaps?: readonly { readonly name: string; readonly granularity: number }[];
  /** Why something is not told that the image has, such as where the record of it is damaged. */
  readonly warnings?: readonly string[];
  /** What only its format has to tell; `type` says which. */
  readonly formatSpecific?: FormatSpecificInfo;
  /** The files it is spread over, besides its own. */
  readonly children: readonly ChildFileInfo[];
}

/** What `check` found, with qemu-img's counts. */
export interface CheckResult {
  readonly filename: string;
  readonly format: ImageFormat;
  readonly checkErrors: number;
  readonly corruptions: number;
  readonly leaks: number;
  /** What was put right; the counts above are of what is left. */
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** One line a finding or step of a repair, in qemu-img's words; the first 10 000. */
  readonly findings: readonly CheckFinding[];
  /** Why the check was given up, with damage that leaves no way on; its numbers are then partial. */
  readonly failure: 'EIO' | 'EINVAL' | 'EFBIG' | undefined;
  /** Host offset in bytes after the last cluster in use. */
  readonly imageEndOffset: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** One finding of `check`, or one step of a repair. */
export interface CheckFinding {
  /** `repair` is being put right; `note` counts for nothing by itself. */
  readonly kind: 'corruption' | 'leak' | 'error' | 'repair' | 'note';
  /** What it is about, by a name that stays the same. */
  readonly topic: string;
  /** In qemu-img's words. */
  readonly message: string;
  /** What it means for the user's data, in one sentence. */
  readonly explanation: string;
}

/** Arguments of `Image.check`. */
export interface CheckOptions extends LongOperationOptions {
  /**
   * `leaks` frees clusters that nothing refers to; `all` puts right whatever can be. The image has to
   * be opened for writing and `forCheck`; close it afterwards. A repair never writes guest data, and
   * one that is cut off leaves the image no worse.
   */
  readonly repair?: 'leaks' | 'all' | undefined;
  /** Told each finding when it is made. */
  readonly onFinding?: ((finding: CheckFinding) => void) | undefined;
  /** How many threads read L2 tables where there are many, each with a queue of its own; 1 if left out. */
  readonly queues?: number | undefined;
}
