/**
 * What every image format offers to the layer above: an image open on one thread, its queues, and
 * the reports about it. The image layer knows formats only through this.
 */
import type { QueueCounters } from '../engine/counters.js';
import type { CopiedPart, CopySegment, StorageFile } from '../storage/storage.js';

/** The image below another one, as a queue of the upper one reads it. */
export interface BackingReader {
  /** Virtual size in bytes; what lies beyond reads as zeroes and is not asked for. */
  readonly size: number;
  /** Fills the buffer, all of which lies within `size`. */
  read(buffer: Uint8Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

/** How guest bytes are stored in one image, its backing chain aside. */
export interface StoredExtent {
  /** Guest offset in bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Whether this image, not its backing file, says what the bytes are. */
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed: boolean;
  /** Host offset in bytes, where the bytes lie uncompressed in `filename`. */
  readonly offset?: number;
  readonly filename?: string;
}

/** Bytes that a format copies at once from other files: so many that what a copy costs beside is little. */
export const copiedBytes = 16 * 1024 * 1024;

/** Filling an image that holds nothing there with data that lie in other files. */
export interface DataCopy {
  /** Bytes that are copied at once at most, a power of two: copies lie within multiples of it. */
  readonly mostBytes: number;
  /** Bytes, a power of two: copies begin and end at multiples of it, or at the end of the disk. */
  readonly granule: number;
  /**
   * Copies the segments, one after the other and `length` bytes in all, to a guest offset, where the image
   * and what is below it hold nothing; blocks of zeroes are left out. Copies are begun in the order of the
   * calls, and have places in it; nothing else may be written meanwhile by this queue.
   *
   * @returns what holds data now; undefined, with nothing changed that can be seen, if the range has to
   *   be written in another way
   */
  copy(
    segments: readonly CopySegment[],
    offset: number,
    length: number,
  ): Promise<readonly CopiedPart[] | undefined>;
}

/** How an image is filled. */
export interface FillRule {
  /** Bytes of a block that is left out if it is zeroes; 0 leaves out none. */
  readonly sparseSize: number;
  /** Whether the host copies by itself what it can, blocks of zeroes too. */
  readonly offload: boolean;
}

/** One queue of an open image. Offsets are guest offsets within the image's size. */
export interface FormatQueue {
  read(buffer: Uint8Array, offset: number): Promise<void>;
  write(buffer: Uint8Array, offset: number): Promise<void>;
  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  /** Stores one cluster compressed. */
  writeCompressed(buffer: Uint8Array, offset: number): Promise<void>;
  /**
   * Takes note that a range is about to be filled in its order: its blocks are reserved where data lie
   * in guest order, elsewhere clusters by so many at a time.
   *
   * @returns whether the host can
   */
  reserve(offset: number, length: number): Promise<boolean>;
  /**
   * A way to fill the image from other files.
   *
   * @returns undefined where there is none
   */
  dataCopy(rule: FillRule): DataCopy | undefined;
  flush(): Promise<void>;
  /** Waits for the queue's requests and leaves the image. */
  close(): Promise<void>;
}

/** An image of some format, open on this thread. */
export interface FormatImage {
  /** Virtual size in bytes. */
  readonly size: number;
  /** Bytes of a cluster; undefined for a format that has none. */
  readonly clusterSize: number | undefined;
  /** Adds a queue, which reads what is not here through `backing`. */
  openQueue(
    file: StorageFile,
    dataFile: StorageFile | undefined,
    backing: BackingReader | undefined,
    counters: QueueCounters,
  ): FormatQueue;
  /** How a guest range is stored, in ascending extents that cover it. */
  extents(offset: number, length: number, signal?: AbortSignal): AsyncIterable<StoredExtent>;
  /**
   * Ends this thread's use, after its queues have left.
   *
   * @param last whether no other thread has the image open: then everything becomes durable
   */
  close(last: boolean): Promise<void>;
}
