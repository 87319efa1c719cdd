/**
 * The protocol layer's one interface: a file of bytes, opened for one queue.
 * Implementations and filters live beside it; this file holds no behaviour.
 */
import type { AbortSignalLike } from '../abort-signal.js';
import type { HttpOptions } from './http-options.js';
import type { NbdOptions } from './nbd-options.js';
import type { NullOptions } from './null-options.js';

/**
 * What a storage request calls when it has ended. An object instead of a closure, so that a
 * pooled request can be its own completion and the hot path allocates nothing.
 */
export interface Completion {
  /** @param error null on success. Called exactly once, never from within the submitting call. */
  complete(error: Error | null): void;
}

/**
 * What another thread needs to attach to an open file while some queue of it stays open; can be cloned by
 * structuredClone. Each protocol adds its own.
 */
export interface StorageHandle {
  /** Name of the protocol. */
  readonly protocol: string;
  readonly filename: string;
}

/** How much has been read of how many bytes. */
export interface ByteProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** How a storage file is to be opened. */
export interface StorageOpenOptions {
  readonly readOnly?: boolean;
  /**
   * Host page cache and durability, QEMU's cache modes: `none` and `directsync` bypass the page
   * cache (O_DIRECT); `writethrough` and `directsync` make every write durable before it completes;
   * `unsafe` ignores flushes. The default is `writeback`.
   */
  readonly cache?: CacheMode;
  /** I/O engine of the native backend; `auto` picks per operation whatever measured fastest. */
  readonly aio?: AioMode;
  /** Take no image locks that conflict with other processes (`qemu-img -U`). */
  readonly forceShare?: boolean;
  /** Of a file that is only read: others may write to it meanwhile, as QEMU lets them to raw images. */
  readonly sharesWriting?: boolean;
  /** `off`: neither take image locks nor look at those of others, whatever is done to the file. */
  readonly locking?: LockingMode;
  /** Of a file of a web server. */
  readonly http?: HttpOptions | undefined;
  /** Of an export of an NBD server. */
  readonly nbd?: NbdOptions | undefined;
  /** Of a disk that keeps nothing. */
  readonly null?: NullOptions | undefined;
  /**
   * Whether a file whose name and first bytes say that it is packed (gzip, xz, zstd, bzip2) is read as what
   * is packed in it; default true.
   */
  readonly unpack?: boolean;
  /** Whether a file that is an image may not name others; default false. */
  readonly isAlone?: boolean;
  /** Ends waits for others, such as web servers. */
  readonly signal?: AbortSignalLike | undefined;
}

/** How a file is to be created. */
export interface StorageCreateOptions extends StorageOpenOptions {
  /** Without copy on write, where the file system knows such files (btrfs). */
  readonly nocow?: boolean | undefined;
  /** Extents of so many bytes are asked for, where the file system has hints (XFS); default 1 MiB. */
  readonly extentSizeHint?: number | undefined;
  /** Told that a hint could not be given. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

/** QEMU's cache modes; `StorageOpenOptions.cache` says what each does. */
export type CacheMode = 'writeback' | 'none' | 'writethrough' | 'directsync' | 'unsafe';
/** Whether files are locked; QEMU's `locking`. */
export type LockingMode = 'auto' | 'off';
/** I/O engines of the native backend. */
export type AioMode = 'auto' | 'io_uring' | 'threads';

/** How `allocate` reserves space. */
export type AllocateMode =
  /** fallocate(2) mode 0: reserve blocks and grow the file. */
  | 'falloc'
  /** Reserve by writing zeroes over the range, which must hold no data yet. */
  | 'full'
  /**
   * fallocate(2) with FALLOC_FL_KEEP_SIZE: reserve blocks, and change neither bytes nor length; it fails
   * where the host knows no such thing.
   */
  | 'keep';

/** A stretch of a file as `status` reports it. */
export interface StorageStatus {
  /** False where the file system knows the range as a hole, which reads as zeroes. */
  readonly data: boolean;
  /** Bytes from the queried offset that share this state, at least 1. */
  readonly length: number;
}

/** Facts about an open file that its users plan by. */
export interface StorageLimits {
  /** Alignment in bytes that requests should have to be fast; others are handled, at a cost. */
  readonly requestAlignment: number;
  /** Whether bytes in a range just grown by `truncate`, or punched by `discard`, read as zeroes. */
  readonly zeroInit: boolean;
  /** Whether `status` can tell holes from data. */
  readonly detectsHoles: boolean;
  /** True for a block device, whose size is fixed. */
  readonly blockDevice: boolean;
}

/** Where requests are stopped: at the first event after a breakpoint was set, until it is lifted. */
export interface EventBreakpoints {
  /** Told of each request that is stopped, and that goes on. */
  onChange: ((what: 'Suspended' | 'Resuming', tag: string) => void) | undefined;
  /** Stops the next request that comes to an event. @returns false if there is no such event */
  set(event: string, tag: string): boolean;
  /** Lets the last request of a tag go on. @returns whether one was stopped */
  resume(tag: string): boolean;
  /** Takes back all breakpoints of a tag, and lets go on what they have stopped. @returns whether there were any */
  remove(tag: string): boolean;
  /** Takes back all that there are. */
  clear(): void;
  /** Waits until a request is stopped. */
  whenStopped(tag: string): Promise<void>;
}

/** Hears what is done above a file, by QEMU's names of events (`l2_load`, `write_aio`). */
export interface EventHearer {
  /** @returns what whoever tells of an event has to wait for before it goes on, if anything */
  hear(event: string): Promise<void> | undefined;
  readonly breakpoints: EventBreakpoints;
}

/** A byte of an open file. */
export interface FilePlace {
  readonly file: StorageFile;
  /** Bytes. */
  readonly offset: number;
}

/** Bytes to copy: of an open file, or zeroes. */
export interface CopySegment {
  readonly file: StorageFile | undefined;
  /** Bytes. */
  readonly offset: number;
  /** Bytes, at least 1. */
  readonly length: number;
}

/** A part of what was copied, as it was written; all in bytes. */
export interface CopiedPart {
  /** Where it lies in what was copied. */
  readonly at: number;
  readonly length: number;
  readonly hostOffset: number;
}

/** What became of a copy. */
export interface CopyOutcome {
  /** Ascending; after a failure, what has been written or was about to be. */
  readonly parts: readonly CopiedPart[];
  readonly failure: Error | undefined;
}

/** How data are copied into a file. */
export interface CopyRule {
  /** Bytes that are written as a whole, with places of their own; 0 if all have their place before. */
  readonly granule: number;
  /** Bytes of a block that is not copied if it is zeroes, counted from a copy's begin; 0 copies all. */
  readonly sparseSize: number;
  /**
   * Whether ranges with places of their own are copied within the host where it can (copy_file_range(2)),
   * blocks of zeroes too.
   */
  readonly offload?: boolean;
  /** Bytes that one thread copies at a time, about; 1 MiB by default. */
  readonly stretchBytes?: number;
  /**
   * Whether several threads carry copies out from the start: by default where the host has more than two
   * processors. In any case they do once reading takes longer than writing.
   */
  readonly isShared?: boolean;
}

/**
 * Copies data of other files into one, where the host can without their passing through JavaScript.
 * Copies are read side by side, and written one after the other in the order in which they began.
 */
export interface DataCopier {
  /** Gives room for granules, in bytes, which is used after what was given before. */
  offer(start: number, length: number, isZero: boolean): void;
  /**
   * Copies the segments, one after the other and `length` bytes in all: to `offset` and what follows, or
   * with granules to the next room there is, of which there must be enough. Blocks of zeroes are left out,
   * and granules that are only zeroes; what follows the last byte of a granule that is written is zeroes.
   */
  copy(segments: readonly CopySegment[], offset: number, length: number): Promise<CopyOutcome>;
}

/**
 * A file of bytes, opened by and for one queue. Methods may be called concurrently without limit.
 *
 * Reads beyond the end of the file yield zeroes, except that a read may not start or end beyond
 * 2^53 - 1. Every read and write transfers its whole buffer or fails. Buffers may lie on a
 * SharedArrayBuffer. Failures are `CowherdError`s that name the file and the offset.
 */
export interface StorageFile {
  readonly filename: string;
  readonly readOnly: boolean;
  readonly limits: StorageLimits;
  /** QEMU's name of the driver of what it is: `file`, `host_device`, `https`. */
  readonly protocol: string;
  /** Whether it can be read only once, about from its begin to its end. */
  readonly isSequential?: boolean;
  /** Whether it lies in several files, which may be in different folders. */
  readonly isScattered?: boolean;
  /** Whether it has no locks: then it is opened alike whatever others may do with it meanwhile. */
  readonly isLockless?: boolean;
  /** Who hears what is done above it; absent where nobody does. */
  readonly events?: EventHearer | undefined;

  /** Length of the file in bytes. */
  size(): Promise<number>;
  /** Bytes the file occupies on its file system, or undefined where that is not known. */
  allocatedSize(): Promise<number | undefined>;
  /** Bytes of the extents that the file system was asked for; undefined if none were. */
  extentSizeHint?(): number | undefined;

  /** Hot path of `read`: no promise. The buffer belongs to the file until completion. */
  submitRead(buffer: Uint8Array, offset: number, completion: Completion): void;
  /** Hot path of `write`: no promise. The buffer belongs to the file until completion. */
  submitWrite(buffer: Uint8Array, offset: number, completion: Completion): void;

  read(buffer: Uint8Array, offset: number): Promise<void>;
  write(buffer: Uint8Array, offset: number): Promise<void>;
  /** Reads consecutive bytes from `offset` into the buffers, one after the other. */
  readVector(buffers: readonly Uint8Array[], offset: number): Promise<void>;
  /** Writes the buffers one after the other from `offset`, as one request where the host can. */
  writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void>;

  /** Makes every write completed before this call durable (fdatasync(2)). */
  flush(): Promise<void>;
  /**
   * Sets the file's length in bytes.
   *
   * @param reserve whether blocks for what is added are reserved at once, as far as the host can and
   *   has room for all of them; nobody may write there before this has ended
   */
  truncate(size: number, reserve?: boolean): Promise<void>;
  /** Reserves space for a range, growing the file if need be. */
  allocate(offset: number, length: number, mode: AllocateMode): Promise<void>;
  /** Makes a range read as zeroes, growing the file if need be; with `unmap` it may become a hole. */
  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void>;
  /**
   * Tells the host that a range is no longer needed (hole punching, keeping the file's size).
   * @returns true if the range is now known to read as zeroes; false where the host cannot do it,
   *   which is no error
   */
  discard(offset: number, length: number): Promise<boolean>;
  /** State of the bytes from `offset` on, looking at most `length` bytes ahead. */
  status(offset: number, length: number): Promise<StorageStatus>;
  /**
   * Copies within the host (copy_file_range(2)).
   * @returns false, with nothing promised about the range, where the host cannot do it for this pair
   */
  copyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean>;

  /** Whether `copyFrom` has blocks of the source shared, which copies nothing. */
  canCloneFrom(source: StorageFile): boolean;
  /** A way to copy data of other files into this one. */
  dataCopier(rule: CopyRule): DataCopier;

  /** What `attach` of its protocol takes on another thread; undefined for what cannot be shared so. */
  handle?(): StorageHandle | undefined;
  /** Where a byte of it lies in the file that it is a part of; absent for whole files. */
  place?(offset: number): FilePlace;
  /** The same open file for another queue: shares the descriptor and locks, has a ring of its own. */
  openQueue(): StorageFile;
  /** Ends this queue's use; the last of a file's queues to close releases descriptor and locks. */
  close(): Promise<void>;
}
