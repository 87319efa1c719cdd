/** What people hold: an open image, its queues, and the streams of its content. */
import type { Readable, Writable } from 'node:stream';
import type { AbortSignalLike } from '../../abort-signal.js';
import type { ThrottleOptions } from '../../engine/throttle.js';
import type { AmendOptions, ResizeOptions } from './options.js';
import type { BufferLike } from './buffer.js';
import type { PathLike } from './path.js';
import type {
  BitmapExtent,
  BitmapState,
  CheckOptions,
  CheckResult,
  Extent,
  ImageFormat,
  ImageInfo,
  SnapshotInfo,
} from './reports.js';
import type { ImageStats } from './stats.js';

export type { BufferLike } from './buffer.js';

declare const imageHandle: unique symbol;

/**
 * An open image as another thread can attach to it. What it holds is no promise; it may only be sent
 * to a worker (`postMessage`, `workerData`) and given to `attachImage` there.
 */
export interface ImageHandle {
  readonly [imageHandle]: true;
}

/** Which part of a disk a stream reads, and how. */
export interface ReadStreamOptions {
  /** Guest offset of the first byte; default 0. */
  readonly start?: number | undefined;
  /** Guest offset of the last byte, which is read too; default, and with `Infinity`, that of the disk. */
  readonly end?: number | undefined;
  /** Bytes that are read ahead of the reader, in up to 16 requests of at most 1 MiB; default 4 MiB. */
  readonly highWaterMark?: number | undefined;
  /** Destroys the stream with ERR_COWHERD_ABORTED. */
  readonly signal?: AbortSignalLike | undefined;
}

/** Where on a disk a stream writes. */
export interface WriteStreamOptions {
  /** Guest offset of the first byte; default 0. */
  readonly start?: number | undefined;
  /** Destroys the stream with ERR_COWHERD_ABORTED; what was written by then stays. */
  readonly signal?: AbortSignalLike | undefined;
}

/** How long work on a snapshot is cancelled. */
export interface SnapshotOptions {
  /** Ends with ERR_COWHERD_ABORTED what has not begun to change the image. */
  readonly signal?: AbortSignalLike | undefined;
}

/** How a snapshot is taken. */
export interface TakeSnapshotOptions extends SnapshotOptions {
  /** When it says it was taken; default now. */
  readonly date?: Date | undefined;
}

/** An internal snapshot: by its id or else its name, or by what both have to be. */
export type SnapshotChoice = string | { readonly id?: string; readonly name?: string };

/**
 * The internal snapshots of an image. What changes anything waits for the requests of all queues on all threads,
 * and these wait for it; power cuts leave a snapshot whole or absent.
 *
 * All throw ERR_COWHERD_UNSUPPORTED for formats without snapshots, for images whose data lie in another file, and
 * where a count of references has no room; ERR_COWHERD_READ_ONLY, ERR_COWHERD_CLOSED.
 */
export interface ImageSnapshots {
  /** In the order in which they were taken. */
  list(): Promise<readonly SnapshotInfo[]>;
  /**
   * Takes a snapshot of the disk as it is.
   *
   * @param name at most 255 bytes; several snapshots may have one name
   */
  create(name: string, options?: TakeSnapshotOptions): Promise<SnapshotInfo>;
  /**
   * Has the disk be what it was, its size included; what it is now is lost, unless another snapshot has it.
   *
   * @throws ERR_COWHERD_NOT_FOUND; ERR_COWHERD_UNSUPPORTED also for an image with bitmaps, and for a version 2
   *   image of another size
   */
  apply(choice: SnapshotChoice, options?: SnapshotOptions): Promise<void>;
  /** Gives a snapshot up. @throws ERR_COWHERD_NOT_FOUND */
  delete(choice: SnapshotChoice, options?: SnapshotOptions): Promise<void>;
}

/**
 * State of a machine that a disk belongs to, which an image keeps beyond its disk, as QEMU does: `savevm` puts its there
 * before it takes a snapshot, which goes on having it. It moves when the disk gets another size, and is lost then.
 * Offsets are within the state; requests come one after the other.
 *
 * Both throw ERR_COWHERD_UNSUPPORTED for formats without internal snapshots, for images whose data lie in another file,
 * and for state that an open image has no room for; ERR_COWHERD_READ_ONLY, ERR_COWHERD_CLOSED.
 */
export interface ImageVmState {
  /** Fills the whole buffer; what was never written reads as zeroes. */
  read(buffer: BufferLike, offset: number): Promise<void>;
  write(buffer: BufferLike, offset: number): Promise<void>;
}

/** How long work on a bitmap is cancelled. */
export interface BitmapOptions {
  /** Ends with ERR_COWHERD_ABORTED what has not begun to change the image. */
  readonly signal?: AbortSignalLike | undefined;
}

/** How a bitmap is begun. */
export interface AddBitmapOptions extends BitmapOptions {
  /** Bytes that one bit covers, a power of two from 512 to 2 GiB; default a cluster, from 4 to 64 KiB. */
  readonly granularity?: number | undefined;
  /** Whether nothing is recorded in it until it is enabled; default false. */
  readonly disabled?: boolean | undefined;
}

/** A bitmap of this image, by its name, or of another one that is open. */
export type BitmapChoice = string | { readonly image: Image; readonly name: string };

/** A stretch of the disk that has changed. */
export interface DirtyRange {
  /** Guest offset in bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/**
 * The persistent bitmaps of an image, each of which says what has changed since it was begun. Those that are
 * enabled record what any queue on any thread writes, and are stored when the last thread closes the image; until
 * then the file says that they are in use, so that one that was cut off is told from one that is exact. What
 * changes one waits for the requests of all queues on all threads, and these wait for it; power cuts leave it as
 * it was, as it is to be, or in use.
 *
 * All but `list` throw ERR_COWHERD_UNSUPPORTED for formats without bitmaps, and for a bitmap that was in use when
 * the image was closed, which can only be removed; ERR_COWHERD_NOT_FOUND; ERR_COWHERD_READ_ONLY for what changes
 * anything; ERR_COWHERD_CLOSED.
 */
export interface ImageBitmaps {
  /** In the order in which they were begun. */
  list(): Promise<readonly BitmapState[]>;
  /**
   * Begins a bitmap.
   *
   * @param name at most 1023 bytes
   * @throws ERR_COWHERD_UNSUPPORTED also for a name that is taken, images of version 2, and what QEMU could not read
   */
  add(name: string, options?: AddBitmapOptions): Promise<void>;
  remove(name: string, options?: BitmapOptions): Promise<void>;
  /** Has it say that nothing has changed. */
  clear(name: string, options?: BitmapOptions): Promise<void>;
  /** Has what is written from now on be recorded in it. */
  enable(name: string, options?: BitmapOptions): Promise<void>;
  /** Has it stay what it is, whatever is written. */
  disable(name: string, options?: BitmapOptions): Promise<void>;
  /** Has it say also what others say, whose disks have the same size. */
  merge(
    name: string,
    sources: BitmapChoice | readonly BitmapChoice[],
    options?: BitmapOptions,
  ): Promise<void>;
  /**
   * The stretches of the disk, or a part of it, that have changed, ascending; with everything that had completed
   * when a stretch is told.
   */
  dirtyRanges(
    name: string,
    range?: {
      readonly offset?: number;
      readonly length?: number;
      readonly signal?: AbortSignalLike;
    },
  ): AsyncIterable<DirtyRange>;
}

/** The request methods that an image and each of its queues share. */
export interface RequestTarget {
  /**
   * Fills the whole buffer, by its bytes whatever its elements, from the guest offset.
   * @throws ERR_COWHERD_INVALID_ARGUMENT for what is no buffer, or a resizable one
   */
  read(buffer: BufferLike, offset: number): Promise<void>;
  /**
   * Writes the whole buffer, by its bytes whatever its elements, at the guest offset.
   * @throws ERR_COWHERD_INVALID_ARGUMENT for what is no buffer, or a resizable one
   */
  write(buffer: BufferLike, offset: number): Promise<void>;
  /**
   * Fills buffers one after the other from the guest offset, as `read` does one: by one request of the host
   * where their bytes lie in one piece.
   */
  readv(buffers: readonly BufferLike[], offset: number): Promise<void>;
  /**
   * Writes buffers one after the other at the guest offset, as `write` does one: by one request of the host
   * where their bytes lie in one piece.
   */
  writev(buffers: readonly BufferLike[], offset: number): Promise<void>;
  /** Makes a guest range read as zeroes; with `unmap` its clusters may be freed. */
  writeZeroes(
    offset: number,
    length: number,
    options?: { readonly unmap?: boolean },
  ): Promise<void>;
  /** Frees what can be freed of a guest range, which then reads as zeroes where it was freed. */
  discard(offset: number, length: number): Promise<void>;
  /**
   * Stores whole clusters compressed: the buffer is one cluster (or the image's shorter last one)
   * at a cluster's guest offset, which must be unallocated.
   * @throws ERR_COWHERD_UNSUPPORTED for formats without compression
   */
  writeCompressed(buffer: BufferLike, offset: number): Promise<void>;
  /**
   * Says that a guest range is about to be filled in its order, so that its data lie together. What it
   * reads as stays. Of a raw image the host reserves the blocks, and `discard` gives back those that are
   * not filled; a qcow2 image reserves clusters, so many at a time, and gives back by itself at its
   * closing those that were not used.
   *
   * @returns whether that is done; a host that cannot, or has no room, is no error
   * @throws CowherdError ERR_COWHERD_OUT_OF_RANGE, ERR_COWHERD_READ_ONLY or ERR_COWHERD_CLOSED
   */
  reserve(offset: number, length: number): Promise<boolean>;
  /** Makes every request that completed before this call durable. */
  flush(): Promise<void>;
  /**
   * Makes every request that completed before this call outlast the process, though not the machine: another
   * process finds what was written. Costs next to nothing where only data were overwritten since.
   */
  settle(): Promise<void>;
  /**
   * The content of the disk, or a part of it, as one of Node's streams of `Buffer`s. What is not stored is
   * filled in as zeroes. What is written to the image meanwhile may be in it or not. The stream has closed
   * when no request of it is under way any more, after `destroy()` too; its errors are `CowherdError`s.
   *
   * @throws ERR_COWHERD_OUT_OF_RANGE for what lies beyond the disk, ERR_COWHERD_CLOSED
   */
  createReadStream(options?: ReadStreamOptions): Readable;
  /**
   * One of Node's streams that fills the disk from an offset on. Chunks are copied and gathered: their
   * callbacks come when they are taken, and at `finish` all of them are written and durable. What would lie
   * beyond the disk fails the stream with ERR_COWHERD_OUT_OF_RANGE. A stream that is destroyed, or fails,
   * may have written some of what it took; it has closed when no request of it is under way any more.
   *
   * @throws ERR_COWHERD_OUT_OF_RANGE, ERR_COWHERD_READ_ONLY or ERR_COWHERD_CLOSED
   */
  createWriteStream(options?: WriteStreamOptions): Writable;
}

/** Another queue of an open image on this thread. */
export interface ImageQueue extends RequestTarget, AsyncDisposable {
  /** Waits for this queue's requests and leaves the image. */
  close(): Promise<void>;
}

/** An open image. */
export interface Image extends RequestTarget, AsyncDisposable {
  readonly filename: string;
  readonly format: ImageFormat;
  readonly readOnly: boolean;
  /** Virtual size in bytes. */
  readonly size: number;
  /** Bytes of a cluster; undefined for a format that has none. */
  readonly clusterSize: number | undefined;
  /** The image below in the chain, if one is open. */
  readonly backing: Image | undefined;

  info(): Promise<ImageInfo>;
  map(range?: {
    readonly offset?: number;
    readonly length?: number;
    readonly signal?: AbortSignalLike;
  }): AsyncIterable<Extent>;
  /**
   * What a persistent bitmap says of the disk, or a part of it: where something has changed since it was begun.
   *
   * @throws ERR_COWHERD_NOT_FOUND for a bitmap that is not there; ERR_COWHERD_UNSUPPORTED for one that was in
   *   use when the image was closed, and for formats without bitmaps
   */
  bitmap(
    name: string,
    range?: {
      readonly offset?: number;
      readonly length?: number;
      readonly signal?: AbortSignalLike;
    },
  ): AsyncIterable<BitmapExtent>;
  /**
   * Gives the disk another size, on all threads at once. What is added reads as zeroes.
   *
   * @param size bytes, a multiple of 512, with a suffix such as `10G` if wanted
   * @throws ERR_COWHERD_INVALID_ARGUMENT for a smaller size without `shrink`, ERR_COWHERD_UNSUPPORTED for a format,
   *   an image or a device whose size is what it is
   */
  resize(size: number | string, options?: ResizeOptions): Promise<void>;
  /**
   * Has the image be of another kind: of another version, with other features, with reference counts of another
   * width, of another size; on all threads at once, and what is not named stays. A smaller size is allowed. No
   * request of any queue runs meanwhile, but for those of a size, which come between the others.
   *
   * @throws ERR_COWHERD_UNSUPPORTED for a format that cannot, or what the image, as it is, cannot become, with nothing
   *   changed
   */
  amend(options: AmendOptions): Promise<void>;
  /** Its internal snapshots. */
  readonly snapshots: ImageSnapshots;
  /** The state of a machine that it keeps. */
  readonly vmState: ImageVmState;
  /** Its persistent bitmaps. */
  readonly bitmaps: ImageBitmaps;
  /**
   * Checks the image while no request of any queue runs. What other threads have freed, and not flushed,
   * still counts as leaked.
   *
   * @throws ERR_COWHERD_UNSUPPORTED for a format without checks, or without the repair that is asked for
   */
  check(options?: CheckOptions): Promise<CheckResult>;
  /**
   * Puts another image below this one, or none, for as long as it is open, on all threads at once: no request
   * runs meanwhile. What the image itself names as its backing file stays. Who does this sees to it that the
   * disk looks the same.
   *
   * @param name of the image, relative to the working directory; undefined for none, which reads as zeroes
   * @throws ERR_COWHERD_UNSUPPORTED for a format whose images stand on no others, ERR_COWHERD_BACKING for an
   *   image that cannot be opened, or that this one was not made over where it says so
   */
  replaceBacking(
    name: PathLike | undefined,
    options?: { readonly format?: ImageFormat | undefined },
  ): Promise<void>;
  /** Opens another queue on this thread, with limits of its own if wanted. */
  openQueue(options?: { readonly throttle?: ThrottleOptions | undefined }): Promise<ImageQueue>;
  /** What the queues of all threads have done so far; costs them nothing. */
  stats(): ImageStats;
  /**
   * What `attachImage` takes on other threads, as long as some thread has the image open. Once it is
   * given out, a thread that ends without closing the image makes it unusable for all.
   *
   * @throws ERR_COWHERD_UNSUPPORTED if the image lies in the memory of one thread
   */
  handle(): ImageHandle;
  /**
   * Waits for every request of this thread, makes everything durable that it has written, and releases the image;
   * the last thread to leave ends it.
   */
  close(): Promise<void>;
}
