/** How images are opened and made: the arguments of `openImage` and `createImage`. */
import type { AbortSignalLike } from '../../abort-signal.js';
import type { ThrottleOptions } from '../../engine/throttle.js';
import type { CreateOptions, Preallocation } from '../../format/create-options.js';
import type { CacheSizes, DecryptOptions, FormatChanges } from '../../format/driver.js';
import type { FilterChoice } from '../../storage/filters/registry.js';
import type { HttpOptions } from '../../storage/http-options.js';
import type { NbdOptions } from '../../storage/nbd-options.js';
import type { NullOptions } from '../../storage/null-options.js';
import type { AioMode, CacheMode, LockingMode } from '../../storage/storage.js';
import type { LongOperationOptions } from './long-operation.js';
import type { CheckFinding, ImageFormat } from './reports.js';

export type { ThrottleOptions } from '../../engine/throttle.js';
export type { CreateOptions, EncryptOptions, Preallocation } from '../../format/create-options.js';
export type { CacheSizes, DecryptOptions } from '../../format/driver.js';
export type { PasswordChange } from '../../format/encryption/passwords.js';
export type { FilterChoice } from '../../storage/filters/registry.js';
export type { HttpOptions } from '../../storage/http-options.js';
export type { NbdOptions } from '../../storage/nbd-options.js';
export type { NullOptions } from '../../storage/null-options.js';
export type { AioMode, CacheMode, LockingMode } from '../../storage/storage.js';
export type { PathLike } from './path.js';

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
  /** Shares of it in bytes, if they are not to be as they are; of sizes for all three one is refused. */
  readonly caches?: Omit<CacheSizes, 'total'> | undefined;
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
  /** Whether discarded clusters are freed; `ignore` leaves them as they are. Default `unmap`. */
  readonly discard?: 'unmap' | 'ignore' | undefined;
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
  /**
   * Whether clusters are reserved ahead of the writes that take them; default true. Without that each write of a
   * queue takes what it needs in the first gap that has all of it, so that requests which come one at a time leave
   * the file laid out as by QEMU. It is slower, and files in which much is freed become longer.
   */
  readonly reserveAhead?: boolean | undefined;
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
  /** Of images that are exports of NBD servers, and exports that they name. */
  readonly nbd?: NbdOptions | undefined;
  /** Of disks that keep nothing (`null-co://`, `null-aio://`), and of files that are such. */
  readonly null?: NullOptions | undefined;
  /**
   * The whole name that `info` tells, where the path does not say what the image is. A `json:` name that puts
   * filters over the file brings its own.
   */
  readonly fullName?: string | undefined;
  /**
   * What is put over the image's own file, outermost first: filters by name, with their options. Files that
   * the image names have none.
   */
  readonly filters?: readonly FilterChoice[] | undefined;
  /** By what the disk of an encrypted image is read; not of those below it. */
  readonly encrypt?: DecryptOptions | undefined;
  /**
   * Secrets by the ids that names have for them (`encrypt.key-secret=ID`), of the image and of those below it. Other
   * threads that have the image open know them too; what the disk is encrypted by they know without.
   */
  readonly secrets?: Readonly<Record<string, Uint8Array | string>> | undefined;
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

/** What an image is to be from now on; what is left out stays. Lazy counts begin when it is next opened. */
export interface AmendOptions extends FormatChanges, LongOperationOptions {
  /** Virtual size in bytes, or with a suffix; a smaller one gives up what lies beyond. */
  readonly size?: number | string | undefined;
}

/** How a disk gets another size. */
export interface ResizeOptions {
  /** Allows a smaller size: what lies beyond is gone. */
  readonly shrink?: boolean | undefined;
  /** Space reserved for what is added; default `off`. */
  readonly preallocation?: Preallocation | undefined;
  /** Ends with ERR_COWHERD_ABORTED what has not been done yet. */
  readonly signal?: AbortSignalLike | undefined;
}
