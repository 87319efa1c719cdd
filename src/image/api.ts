/**
 * What people hold: the types of an open image, its queues, and what they report.
 * Types only; `open.ts` and `create.ts` make these.
 */
import type { Readable, Writable } from 'node:stream';
import type { AbortSignalLike } from '../abort-signal.js';
import type { CreateOptions } from '../format/create-options.js';
import type { FormatName } from '../format/registry.js';
import type { FormatSpecificInfo } from '../format/specific.js';
import type { FilterChoice } from '../storage/filters/registry.js';
import type { HttpOptions } from '../storage/http-options.js';
import type { AioMode, CacheMode, LockingMode } from '../storage/storage.js';
import type { ThrottleOptions } from '../engine/throttle.js';
import type { BufferLike } from './buffer.js';

export type { AbortSignalLike } from '../abort-signal.js';
export type { ThrottleOptions } from '../engine/throttle.js';
export type { BufferLike } from './buffer.js';
export type { PathLike } from './path.js';
export type { FilterChoice } from '../storage/filters/registry.js';
export type { HttpOptions } from '../storage/http-options.js';
export type { AioMode, CacheMode, LockingMode } from '../storage/storage.js';
export type { CreateOptions, Preallocation } from '../format/create-options.js';
export type {
  BitmapInfo,
  EncryptionInfo,
  EncryptionSlotInfo,
  FormatSpecificInfo,
  Qcow2Info,
  VmdkFacts,
} from '../format/specific.js';

declare const imageHandle: unique symbol;

/**
 * An open image as another thread can attach to it. What it holds is no promise; it may only be sent
 * to a worker (`postMessage`, `workerData`) and given to `attachImage` there.
 */
export interface ImageHandle {
  readonly [imageHandle]: true;
}

/** Formats of an image file, by QEMU's names; any other name may be that of one that was registered. */
export type ImageFormat = FormatName | (string & {});

/** Arguments of `createImage`. */
export interface CreateImageOptions extends CreateOptions {
  readonly format: ImageFormat;
  /** Virtual size in bytes, or with a suffix (`512`, `10k`, `20G`); may be left out with a backing file. */
  readonly size?: number | string;
  /** Do not open the backing file to check it and learn its size (`qemu-img create -u`). */
  readonly backingUnchecked?: boolean;
  /** Whether the new image is on stable storage when this ends; default true. */
  readonly durable?: boolean;
  /** Told of what was asked for and could not be had, and is no error. */
  readonly onWarning?: ((message: string) => void) | undefined;
  /** Gives up, and removes what was begun. */
  readonly signal?: AbortSignalLike | undefined;
}

/** Arguments of `openImage`. */
export interface OpenImageOptions {
  /** Left out, the format is probed from the first bytes. */
  readonly format?: ImageFormat | undefined;
  readonly readOnly?: boolean | undefined;
  readonly cache?: CacheMode | undefined;
  readonly aio?: AioMode | undefined;
  /** Budget of the metadata cache in bytes. */
  readonly cacheSize?: number | undefined;
  /**
   * Whether the backing files (and external data files) an image names may be opened; default
   * `allow`, for an untrusted image `deny`. `ignore` opens the image without its backing file.
   */
  readonly backing?: 'allow' | 'deny' | 'ignore' | undefined;
  /** The backing file to open instead of the one that the image names, and its format. */
  readonly backingFile?: string | undefined;
  readonly backingFormat?: ImageFormat | undefined;
  /** The external data file to open instead of the one that the image names. */
  readonly dataFile?: string | undefined;
  /** The image may be anybody's: it is refused if it names files beside its own, unless told otherwise. */
  readonly untrusted?: boolean | undefined;
  /** Turn written zeroes into `writeZeroes`; `unmap` lets them free clusters. Default `off`. */
  readonly detectZeroes?: 'off' | 'on' | 'unmap' | undefined;
  /**
   * Which metadata of a qcow2 image writes are kept off, should its tables be damaged: those whose
   * place never changes, also the tables in use, or also those of snapshots. A write that would hit
   * one fails with ERR_COWHERD_CORRUPT, and the image is marked corrupt. Default `cached`.
   */
  readonly overlapCheck?: 'none' | 'constant' | 'cached' | 'all' | undefined;
  /**
   * Whether reference counts reach the disk late, the image marked as not closed cleanly meanwhile
   * (QEMU's `lazy-refcounts`). Left out, the image says so itself.
   */
  readonly lazyRefcounts?: boolean | undefined;
  /**
   * Writes of a queue get new clusters in the order in which they were begun, so that what is written
   * in guest order lies in guest order, however many are under way. Random writes wait for one another.
   */
  readonly inOrder?: boolean | undefined;
  /** Read even if another process has the image open for writing (`qemu-img -U`). */
  readonly forceShare?: boolean | undefined;
  /**
   * Whether others may write to a raw image, or one below, that is only read here, as QEMU lets them;
   * default true. Images with tables are never read while others write to them, but with `forceShare`.
   */
  readonly shareWriting?: boolean | undefined;
  /**
   * `off` neither takes the image locks that QEMU knows nor looks at those of others (`auto`, the
   * default). Without the addon nothing can be locked, and to open a file for writing takes `off`,
   * here or for the whole program by `COWHERD_LOCKING=off`.
   */
  readonly locking?: LockingMode | undefined;
  /**
   * Read the state of this internal snapshot instead of the active one, read-only: the one with that id,
   * or else that name, or of which all is true that is said.
   */
  readonly snapshot?: string | { readonly id?: string; readonly name?: string } | undefined;
  /**
   * Which part of its file a raw image is: bytes from an offset, default 0, and how many, default to the
   * end of the file.
   */
  readonly window?:
    { readonly offset?: number | undefined; readonly size?: number | undefined } | undefined;
  /**
   * Gives up opening; and, of an image on a web server, every wait for that. The image itself is closed as
   * always.
   */
  readonly signal?: AbortSignalLike | undefined;
  /**
   * Whether a file whose name and first bytes say that it is packed (gzip, xz, zstd, bzip2) is read as what
   * is packed in it, which is kept in the folder for temporary files meanwhile; default true.
   */
  readonly unpack?: boolean | undefined;
  /** Of images that lie on web servers, and files that they name there. */
  readonly http?: HttpOptions | undefined;
  /**
   * What is put over the image's own file, outermost first: filters by name, with their options. Files that
   * the image names have none.
   */
  readonly filters?: readonly FilterChoice[] | undefined;
  /** Limits of all queues of the image together, on whichever threads they are. */
  readonly throttle?: ThrottleOptions | undefined;
  /**
   * Open to check or repair only: an image that is corrupt or was not closed cleanly is opened as it
   * is, and its guest data cannot be written.
   */
  readonly forCheck?: boolean | undefined;
  /**
   * Open to be described only: an encrypted image is opened too, if it is opened for reading, and none
   * of its data can be read.
   */
  readonly forInfo?: boolean | undefined;
  /**
   * Told what is found and put right when an image that was not closed cleanly is opened for writing,
   * which repairs it first.
   */
  readonly onFinding?: ((finding: CheckFinding) => void) | undefined;
}

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

/** Cancels and observes a long operation. */
export interface LongOperationOptions {
  readonly signal?: AbortSignalLike | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** How far a long operation is. */
export interface Progress {
  readonly doneBytes: number;
  readonly totalBytes: number;
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

/** How long requests took, in microseconds, from a sample of them (one in 16). */
export interface LatencyStats {
  readonly samples: number;
  /** Upper bounds, powers of two, that so many per cent of the requests stayed below. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  /** Requests by time: each bucket holds those from half of `below` up to it. */
  readonly histogram: readonly { readonly below: number; readonly count: number }[];
}

/** What one queue, or all of an image together, has done since it was opened. */
export interface QueueStats {
  /** Number of the queue; -1 for the sum of all. */
  readonly queue: number;
  readonly open: boolean;
  readonly requests: {
    readonly read: number;
    readonly write: number;
    readonly writeZeroes: number;
    readonly discard: number;
    readonly writeCompressed: number;
    readonly flush: number;
  };
  readonly failed: number;
  /** Requests under way: the depth of the queue. */
  readonly inFlight: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly latency: LatencyStats;
  /** How often a request had to wait, by what for. */
  readonly waits: {
    /** A cluster that another request was allocating. */
    readonly claim: number;
    /** A table slice that another request was loading. */
    readonly load: number;
    /** Room in the metadata cache. */
    readonly room: number;
    /** An exclusive operation. */
    readonly gate: number;
    readonly throttle: number;
  };
  /**
   * The metadata cache: requests whose slice was there, slices loaded, slices evicted. Loads and
   * evictions, like waits for them and flush rounds, are counted with the first queue of a thread.
   */
  readonly cache: { readonly hits: number; readonly loads: number; readonly evictions: number };
  readonly allocatedClusters: number;
  readonly reclaimedClusters: number;
  /** Rounds of the flush order that were led, and rounds of another thread that were shared. */
  readonly flushRounds: { readonly led: number; readonly shared: number };
}

/** What the queues of an image have done, on all threads. */
export interface ImageStats {
  /** Threads that have the image open (opening it twice on one thread counts twice). */
  readonly threads: number;
  /** Every queue that is open, and those that have closed. */
  readonly queues: readonly QueueStats[];
  readonly total: QueueStats;
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
   * Checks the image while no request of any queue runs. What other threads have freed, and not flushed,
   * still counts as leaked.
   *
   * @throws ERR_COWHERD_UNSUPPORTED for a format without checks, or without the repair that is asked for
   */
  check(options?: CheckOptions): Promise<CheckResult>;
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
  /** Waits for every request, makes everything durable, and releases the image. */
  close(): Promise<void>;
}
