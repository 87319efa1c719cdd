/**
 * What every image format offers to the layer above: opening and making images, an image open on one
 * thread, its queues, and the reports about it. The image layer knows formats only through this.
 */
import type { AbortSignalLike } from '../abort-signal.js';
import type { QueueCounters } from '../engine/queues/counters.js';
import type { Node } from '../engine/queues/node.js';
import type { CopiedPart, CopySegment, StorageFile } from '../storage/storage.js';
import type { ByteStream } from '../storage/stream/byte-stream.js';
import type { CheckOptions, CheckReport, Finding } from './check.js';
import type { CreateOptions, Preallocation } from './create-options.js';
import type { PasswordChange } from './encryption/passwords.js';
import type { BitmapState, FormatFacts, SnapshotFacts } from './facts.js';
import type { StreamedDisk } from './streamed.js';

/** The image below another one, as a queue of the upper one reads it. */
export interface BackingReader {
  /** Virtual size in bytes; what lies beyond reads as zeroes and is not asked for. */
  readonly size: number;
  /** Fills the buffer, all of which lies within `size`. */
  read(buffer: Uint8Array, offset: number): Promise<void>;
  /**
   * Whether bytes, all of which lie within `size`, read as zeroes by how they are stored: none of them
   * is read. What cannot be told, as tables are damaged or unreadable, is not.
   */
  isKnownZero(offset: number, length: number): Promise<boolean>;
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
  /**
   * Fills several buffers, one after the other, by one request of the host.
   *
   * @param length bytes of all of them
   * @returns undefined, with nothing begun, where that cannot be; absent where it never can
   */
  readVector?(
    buffers: readonly Uint8Array[],
    length: number,
    offset: number,
  ): Promise<void> | undefined;
  /** Writes several buffers in the same way. */
  writeVector?(
    buffers: readonly Uint8Array[],
    length: number,
    offset: number,
  ): Promise<void> | undefined;
  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  /** Fills the buffer with machine state from a guest offset beyond the disk; absent where an image can have none. */
  readVmState?(buffer: Uint8Array, offset: number): Promise<void>;
  /** Writes machine state at a guest offset beyond the disk, where there is room for it. */
  writeVmState?(buffer: Uint8Array, offset: number): Promise<void>;
  /**
   * Gives up whole clusters from a guest offset on, as if the image had never had them; absent for formats
   * that have no clusters, or whose disks do not shrink.
   */
  forget?(offset: number, length: number): Promise<void>;
  /**
   * Gives each cluster of a range that is not in this image a place that reads as zeroes; absent for formats that
   * have no clusters.
   *
   * @throws the signal's reason if it says so, with the places that were given kept
   */
  preallocate?(offset: number, length: number, options: PreallocateOptions): Promise<void>;
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
  /** Makes what has completed outlast the process; absent where only `flush` does. */
  settle?(): Promise<void>;
  /** Waits for the queue's requests and leaves the image. */
  close(): Promise<void>;
}

/** A stretch of the disk as a persistent bitmap has it. */
export interface BitmapExtent {
  /** Guest offset in bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Whether something has changed there since the bitmap was begun. */
  readonly dirty: boolean;
}

/** The files of an image as one queue has them open: its own first, then those that it is spread over. */
export type ImageFiles = readonly [StorageFile, ...StorageFile[]];

/** Another file that an image is spread over, besides its own. */
export interface ChildFile {
  /** QEMU's name of it: `data-file`, `extents.0`. */
  readonly role: string;
  readonly file: StorageFile;
}

/** How an image refers to another file of its own. */
export interface ChildReference {
  /** QEMU's name of it: `data-file`, `extents.0`. */
  readonly role: string;
  /** What it is called in sentences, such as `external data file`. */
  readonly title: string;
  /** The name that the image has; undefined where it has none, so that the caller has to say it. */
  readonly name: string | undefined;
  /** The folder that a relative name is looked for in first: the image's or the working directory. */
  readonly base: 'image' | 'working directory';
}

/** How an image refers to the one below it. */
export interface BackingReference {
  /** As stored; relative to the image's folder. */
  readonly name: string;
  /** Undefined where it is to be probed. */
  readonly format: string | undefined;
  /** Of the image that it was made over, any of these; absent where the image does not say. */
  readonly identities?: readonly string[];
}

/** An internal snapshot: by its id or else its name, or by what both have to be. */
export type SnapshotChoice = string | { readonly id?: string; readonly name?: string };

/** By what an encrypted disk is read. */
export interface DecryptOptions {
  /** What the image is expected to be encrypted by. */
  readonly format?: string | undefined;
  /** What the secret is called. */
  readonly keySecret?: string | undefined;
  /** Undefined where there is none of that name. */
  readonly secret?: Uint8Array | string | undefined;
}

/** How large the caches of metadata are to be, in bytes; what is left out is up to the format. */
export interface CacheSizes {
  /** Of all together. */
  readonly total?: number | undefined;
  /** Of L2 tables. */
  readonly l2?: number | undefined;
  /** Of reference counts. */
  readonly refcounts?: number | undefined;
  /**
   * How much of an L2 table is read at once: a power of two between 512 and the size of a cluster. It is
   * looked at, and up to 4 KiB are read.
   */
  readonly l2Entry?: number | undefined;
}

/** What a caller wants of an image that is opened. Formats look at what they know of. */
export interface FormatOpenOptions {
  readonly readOnly: boolean;
  /** Opened to be checked: what else would be refused or repaired first is let be. */
  readonly forCheck: boolean;
  /** Opened to be described: the data of an encrypted image need not be readable. */
  readonly forInfo: boolean;
  /** Told what the repair of an image that was not closed cleanly finds and does. */
  readonly onFinding: ((finding: Finding) => void) | undefined;
  readonly cacheSizes: CacheSizes;
  /** Which metadata writes are kept off. */
  readonly overlapCheck: 'none' | 'constant' | 'cached' | 'all';
  /** Whether reference counts reach the disk late; undefined for what the image says. */
  readonly lazyRefcounts: boolean | undefined;
  /** Whether writes of a queue take new clusters in the order in which they begin. */
  readonly inOrder: boolean;
  /** Whether clusters are reserved ahead of the writes that take them; true if left out. */
  readonly reserveAhead?: boolean | undefined;
  /** The internal snapshot to read. */
  readonly snapshot: SnapshotChoice | undefined;
  /** By what an encrypted disk is read. */
  readonly encrypt?: DecryptOptions | undefined;
  /** Whether it was just made open-ended. */
  readonly isOpenEnded?: boolean;
}

/** What a format opens an image with. */
export interface FormatOpening {
  readonly file: StorageFile;
  readonly options: FormatOpenOptions;
  /** What all threads will share of the image; its size is said once the image is open. */
  readonly node: Node;
  /** Of this thread's first queue; what its requests share is counted there too. */
  readonly counters: QueueCounters;
  /**
   * Opens another file of the image, as the caller's policy allows; it is closed with the image, or if
   * opening fails.
   *
   * @throws CowherdError ERR_COWHERD_BACKING where that is denied, or what opening a file throws
   */
  readonly openChild: (reference: ChildReference) => Promise<StorageFile>;
}

/** What another thread needs to have an image open too; can be cloned by structuredClone. */
export interface FormatHandle {
  /** Name of the format. */
  readonly format: string;
}

/** The steps in which a disk gets another size. */
export interface DiskResizing {
  /** What a larger disk needs if no more is asked for; nothing if absent. */
  readonly leastPreallocation?: Preallocation;
  /**
   * Looks whether the disk can have that size.
   *
   * @param hidesBelow whether what is added has to hide what an image below holds there
   * @throws CowherdError saying why not
   */
  check(size: number, preallocation: Preallocation, hidesBelow: boolean): Promise<void>;
  /** Makes room for a larger disk, while no queue of any thread runs a request. */
  grow(size: number, preallocation: Preallocation, signal?: AbortSignalLike): Promise<void>;
  /**
   * Has the file say how large the disk is, durably, while no queue of any thread runs a request. What lies
   * beyond a smaller one has been given up.
   */
  finish(size: number): Promise<void>;
}

/** What a snapshot that is taken is called, and when that is. */
export interface NewSnapshotFacts {
  readonly name: string;
  /** Seconds since 1970, and nanoseconds. */
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
}

/** Internal snapshots; what changes anything runs while no queue of any thread runs a request. */
export interface DiskSnapshots {
  list(): Promise<readonly SnapshotFacts[]>;
  create(facts: NewSnapshotFacts, signal?: AbortSignalLike): Promise<SnapshotFacts>;
  /** Has the disk be what it was. @returns its size in bytes */
  apply(choice: SnapshotChoice, signal?: AbortSignalLike): Promise<number>;
  delete(choice: SnapshotChoice, signal?: AbortSignalLike): Promise<void>;
}

/** How clusters get their places. */
export interface PreallocateOptions {
  readonly mode: Exclude<Preallocation, 'off'>;
  /** Whether they hide what an image below has there; else clusters that show it stay as they are. */
  readonly hidesBelow: boolean;
  readonly signal: AbortSignalLike | undefined;
}

/** What an image is to be from now on; what is left out stays as it is. */
export interface FormatChanges extends Pick<
  CreateOptions,
  | 'compat'
  | 'refcountBits'
  | 'lazyRefcounts'
  | 'backingFile'
  | 'backingFormat'
  | 'dataFile'
  | 'dataFileRaw'
> {
  /** Of a disk behind a header of LUKS: its passwords. */
  readonly encrypt?: PasswordChange | undefined;
}

/** How a change is cancelled, and who hears how far it is: bytes of tables that were looked through, and of all. */
export interface ChangeOptions {
  readonly signal: AbortSignalLike | undefined;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

/** The steps in which an image comes to be of another kind, between which its disk gets another size. */
export interface Amendment {
  /**
   * Looks whether all of it can be.
   *
   * @param size that the disk will have, in bytes
   * @throws CowherdError saying why not
   */
  check(changes: FormatChanges, size: number): Promise<void>;
  /** What comes before another size, while no queue of any thread runs a request. */
  begin(changes: FormatChanges, options: ChangeOptions): Promise<void>;
  /** What comes after it, in the same way. */
  finish(changes: FormatChanges, options: ChangeOptions): Promise<void>;
}

/** What a persistent bitmap that is added is called, and what becomes of it. */
export interface NewBitmapFacts {
  readonly name: string;
  /** Bytes that one bit covers; undefined for what suits the image. */
  readonly granularity: number | undefined;
  /** Whether what changes is recorded in it. */
  readonly isEnabled: boolean;
}

/** A bitmap that is merged into another: one of the same image, or what one of another image says. */
export type BitmapSource =
  | string
  | {
      /** Of its disk, in bytes. */
      readonly size: number;
      /** The stretches of a range that have changed. */
      runs(
        start: number,
        length: number,
      ): Iterable<{ readonly start: number; readonly end: number }>;
    };

/**
 * Persistent bitmaps: what has changed since each of them was begun. What changes any of them, and `list`, runs
 * while no queue of any thread runs a request; what is refused of one is told in QEMU's words.
 */
export interface DiskBitmaps {
  list(): Promise<readonly BitmapState[]>;
  add(facts: NewBitmapFacts): Promise<void>;
  remove(name: string): Promise<void>;
  /** Has it say that nothing has changed. */
  clear(name: string): Promise<void>;
  /** Has what changes be recorded in it, or not. */
  setEnabled(name: string, isEnabled: boolean): Promise<void>;
  /** Has it say what both say. */
  merge(name: string, source: BitmapSource, signal?: AbortSignalLike): Promise<void>;
  /**
   * What it says of a guest range, in ascending extents that cover it, with all that has completed by now.
   *
   * @throws CowherdError for a bitmap that is not there, or does not say what has changed
   */
  extents(
    name: string,
    offset: number,
    length: number,
    signal?: AbortSignalLike,
  ): AsyncIterable<BitmapExtent>;
}

/** The steps in which an image comes to name another one as the image below it. */
export interface BackingChange {
  /** Whether zeroes that were written hide what any other image holds there; else they have to be data. */
  readonly zeroesHide: boolean;
  /** Looks whether it can name that, or none. @throws CowherdError saying why not */
  check(backing: BackingReference | undefined): Promise<void>;
  /**
   * Has the file name it, durably, while no queue runs a request; the image is only closed after that. Whatever
   * is cut off leaves the old name or the new one.
   */
  write(backing: BackingReference | undefined): Promise<void>;
}

/** Where machine state lies in an image. Guest offsets in bytes. */
export interface VmStatePlace {
  /** At which it begins, beyond the disk. */
  readonly offset: number;
  /** Beyond which there is no room for any, as the image is now. */
  readonly end: number;
  /** Makes room for state that ends at a guest offset, durably, while no queue runs a request. */
  makeRoom(end: number): Promise<void>;
}

/** An image of some format, open on this thread. */
export interface FormatImage {
  /** Virtual size in bytes that it was opened with; its node says how large it is now. */
  readonly size: number;
  /** Bytes of a cluster; undefined for a format that has none. */
  readonly clusterSize: number | undefined;
  /** Whether guest offsets are offsets in its file, and nothing else is there. */
  readonly isFlat?: boolean;
  /** Whether what was never written to a new image of it reads as anything, rather than as zeroes. */
  readonly beginsAsNoise?: boolean;
  /** Whether it can only be written by whole clusters, compressed. */
  readonly needsCompressedWrites?: boolean;
  /** What it names as the image below it. */
  readonly backing: BackingReference | undefined;
  /** Tells what it holds from what other images hold, and it at other times; of formats that say so. */
  readonly identity?: string | undefined;
  /** What `attach` needs on another thread, as long as some thread has the image open. */
  handle(): FormatHandle;
  /** Adds a queue, which reads what is not here through `backing`. */
  openQueue(
    files: ImageFiles,
    backing: BackingReader | undefined,
    counters: QueueCounters,
  ): FormatQueue;
  /** How a guest range is stored, in ascending extents that cover it. */
  extents(offset: number, length: number, signal?: AbortSignalLike): AsyncIterable<StoredExtent>;
  /** The facts that `info` reports. */
  facts(): Promise<FormatFacts>;
  /** Checks the image while no queue of any thread runs a request; absent where there is no check. */
  check?(options: CheckOptions): Promise<CheckReport>;
  /**
   * Ends the disk of an open-ended image, beyond which nothing was written, with the gate closed; the image
   * is only closed after that. Absent where images are never open-ended.
   *
   * @param size bytes, a multiple of 512
   */
  endAt?(size: number): Promise<void>;
  /**
   * Makes the image as if nothing had ever been written to it, durably; it is only closed after that. Whatever
   * is cut off leaves what was there, or what lies below, of each part of the disk. Absent where that cannot be.
   *
   * @returns false, with nothing done, where clusters have to be given up one by one
   */
  empty?(): Promise<boolean>;
  /**
   * Gives up all that the disk holds, durably, while no queue runs a request; the image goes on. Whatever is cut off
   * leaves what was there, or what lies below, of each part of the disk. Absent for formats that keep what they hold.
   */
  forget?(): Promise<void>;
  /** How it comes to name another image below; absent where it cannot. */
  readonly backingChange?: BackingChange;
  /** Bytes that can be in the image without those around them; those of a cluster if absent. */
  readonly granule?: number;
  /** How it comes to be of another kind; absent where it cannot. */
  readonly amendment?: Amendment | undefined;
  /** How its disk gets another size; absent where it cannot. */
  readonly resizing?: DiskResizing;
  /** Absent where an image can have no machine state. */
  readonly vmState?: VmStatePlace | undefined;
  /** Absent for a format without internal snapshots. */
  readonly snapshots?: DiskSnapshots;
  /** Absent for a format without persistent bitmaps. */
  readonly bitmaps?: DiskBitmaps;
  /**
   * Makes durable what was written, for a thread that leaves the image to others after its queues have left, or while
   * no queue runs a request. Absent where it is in the file already.
   */
  settle?(): Promise<void>;
  /**
   * Ends this thread's use, after its queues have left.
   *
   * @param last whether no other thread has the image open: then everything becomes durable
   */
  close(last: boolean): Promise<void>;
}

/** An image that is to be made. */
export interface NewImage {
  /** Empty, or a device with whatever it held; open for writing. */
  readonly file: StorageFile;
  /** Virtual size in bytes, a multiple of 512. */
  readonly size: number;
  /** Whether that is only what it may come to; `endAt` says what it is. */
  readonly isOpenEnded: boolean;
  /** Whether whoever makes it fills it, too, before anybody else comes to it. */
  readonly isFilled: boolean;
  /** Checked by the driver's `check`. */
  readonly options: CreateOptions;
  readonly signal: AbortSignalLike | undefined;
  /** Makes another file, by a name relative to the working directory; removed if this fails. */
  readonly createChild: (name: string) => Promise<StorageFile>;
}

/** What is to be put into an image whose size is asked for. */
export interface MeasuredContent {
  /** Where its disk holds data, in ascending stretches that may touch. */
  data(): AsyncIterable<{ readonly start: number; readonly length: number }>;
  /** Its persistent bitmaps; undefined where it can have none. */
  readonly bitmaps: readonly { readonly name: string; readonly granularity: number }[] | undefined;
}

/** Bytes that the files of an image take. */
export interface Measurement {
  /** With the content, or empty. */
  readonly required: number;
  /** With every cluster written. */
  readonly fullyAllocated: number;
  /** More for persistent bitmaps; undefined where the source, or the image, can have none. */
  readonly bitmaps?: number | undefined;
}

/** How a driver makes images. */
export interface ImageCreation {
  /**
   * How large an image would be; absent where that is not told.
   *
   * @param size of its disk in bytes
   * @param content left out for an empty one
   * @throws ERR_COWHERD_INVALID_ARGUMENT naming the option that is wrong
   */
  measure?(options: CreateOptions, size: number, content?: MeasuredContent): Promise<Measurement>;
  /**
   * Bytes that a disk may come to whose size is not known when its image is made; undefined where that
   * cannot be with these options. Absent where it never can.
   */
  openEndedBytes?(options: CreateOptions): number | undefined;
  /**
   * Names of the other files that are made with an image, relative to the working directory, beside an external data
   * file; absent where there are none.
   *
   * @param path of the image
   * @param size of its disk in bytes
   */
  otherFiles?(path: string, options: CreateOptions, size: number): readonly string[];
  /** Whether images are written from their begin to their end, if the disk is; absent where they never are. */
  isSequential?(options: CreateOptions): boolean;
  /**
   * Looks at the options of a new image and its size in bytes, before a file is touched.
   *
   * @throws ERR_COWHERD_INVALID_ARGUMENT naming the option that is wrong
   */
  check(options: CreateOptions, size: number): void;
  /**
   * Makes the image; what is cut off is no image at all.
   *
   * @throws ERR_COWHERD_UNSUPPORTED for what a device cannot do, or the signal's reason
   */
  create(image: NewImage): Promise<void>;
}

/** A format: how its images are opened. */
export interface FormatDriver {
  /** As QEMU names it. */
  readonly name: string;
  /** Whether its images can only be read, however they are opened. */
  readonly isReadOnly?: boolean;
  /** Whether its images can stand on another one. */
  readonly hasBacking?: boolean;
  /** Whether its images hold internal snapshots that can be read. */
  readonly hasSnapshots?: boolean;
  /** Opens an image of this format. @throws CowherdError naming the file and what is wrong with it */
  open(opening: FormatOpening): Promise<FormatImage>;
  /** Opens, on this thread, the image of another thread's handle. */
  attach(files: ImageFiles, handle: FormatHandle, node: Node, counters: QueueCounters): FormatImage;
  /**
   * Reads an image once, from its begin to its end; absent where that cannot be.
   *
   * @returns undefined, with nothing taken from the stream, for an image that has to be a file
   * @throws CowherdError naming the stream and what is wrong with it
   */
  readonly stream?: (stream: ByteStream) => Promise<StreamedDisk | undefined>;
  /** Absent where its images are only read. */
  readonly creation?: ImageCreation;
}
