/** The options of `convert`, and what they say of how its sources are opened. */
import type { LongOperationOptions } from '../image/api/long-operation.js';
import type { AioMode, CacheMode, CreateOptions, OpenImageOptions } from '../image/api/options.js';
import type { CheckFinding, ImageFormat } from '../image/api/reports.js';
import type { ImageStats } from '../image/api/stats.js';
import { createOptions } from '../image/options/create-options.js';
import {
  aioMode,
  cacheMode,
  backingFormat,
  imageFormat,
  openImageRules,
  queueCount,
  snapshotChoice,
} from '../image/options/open-options.js';
import {
  type OptionRule,
  type OptionRules,
  abortSignal,
  callback,
  flag,
  options as optionsBy,
  positive,
  text,
  wholeNumber,
} from '../image/options/option-check.js';
import { type ChecksumResult, isDigest } from './checksum.js';
import type { SourceOpening } from './conversion-source.js';

/** What can be said of each source. */
export type SourceOptions = Pick<
  OpenImageOptions,
  | 'forceShare'
  | 'cache'
  | 'aio'
  | 'cacheSize'
  | 'caches'
  | 'unpack'
  | 'http'
  | 'nbd'
  | 'filters'
  | 'window'
  | 'dataFile'
  | 'backingFile'
  | 'backingFormat'
  | 'encrypt'
  | 'secrets'
>;

/** What can be said of a target; where it is made, of how it is opened then. */
export type TargetOptions = Pick<
  OpenImageOptions,
  | 'readOnly'
  | 'cache'
  | 'aio'
  | 'cacheSize'
  | 'caches'
  | 'detectZeroes'
  | 'overlapCheck'
  | 'filters'
  | 'window'
  | 'dataFile'
  | 'backingFile'
  | 'backingFormat'
  | 'encrypt'
  | 'secrets'
>;

/** Options of `convert`; those of `qemu-img convert` under the library's names. */
export interface ConvertOptions extends LongOperationOptions {
  /** Format of the sources; probed if left out. */
  readonly from?: ImageFormat | undefined;
  /** Format of the target; default `raw`. */
  readonly to?: ImageFormat | undefined;
  /** Options of the new target. */
  readonly options?: CreateOptions | undefined;
  /** Store clusters compressed. */
  readonly compress?: boolean | undefined;
  /**
   * Pieces copied at the same time, of 1 MiB or a cluster, whichever is larger; default 16, but no more than
   * take a quarter of the memory there is, and if compressed, two more than there are processors.
   */
  readonly parallel?: number | undefined;
  /**
   * Queues that sources are read through, and the target is written through if `outOfOrder`, since each
   * has a place of its own for new clusters; default 1.
   */
  readonly queues?: number | undefined;
  /**
   * Whether the target may hold the disk in any order. Otherwise places are taken in guest order, and
   * data that follow one another in the disk do so in the target.
   */
  readonly outOfOrder?: boolean | undefined;
  /**
   * Whether the host copies data by itself where it can (copy_file_range(2)), their zeroes too, to a raw
   * target. From raw to raw, blocks are shared if the file system can, unless `sparseSize` is given.
   */
  readonly copyOffload?: boolean | undefined;
  /**
   * Whether `onProgress` may be told of the disk's bytes instead of those that are data, which have to be
   * counted beforehand.
   */
  readonly roughProgress?: boolean | undefined;
  /** The target exists and is kept, not created. */
  readonly skipCreate?: boolean | undefined;
  /**
   * Consecutive zero bytes from which on data become holes or zero clusters; default 4096. With 0
   * zeroes are written like data.
   */
  readonly sparseSize?: number | undefined;
  /** An existing target is known to read as zeroes. */
  readonly targetIsZero?: boolean | undefined;
  /** Internal snapshot of the source to convert; see `openImage`. */
  readonly snapshot?: OpenImageOptions['snapshot'];
  /** Whether the persistent bitmaps of the source are copied too; of those below it none are. */
  readonly bitmaps?: boolean | undefined;
  /** Whether bitmaps that were in use when the source was closed are left out, with a warning. */
  readonly skipBrokenBitmaps?: boolean | undefined;
  /** Read errors become zeroes, with a warning for each range. */
  readonly salvage?: boolean | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
  /**
   * Backing file of the target; what the source shows of its own backing file is not copied, and with
   * `skipCreate` stays as the target has it.
   */
  readonly backing?: string | undefined;
  readonly backingFormat?: ImageFormat | undefined;
  /** Bytes a second to copy at most. */
  readonly rateLimit?: number | undefined;
  readonly sourceCache?: CacheMode | undefined;
  /** Default `unsafe`, as the whole target is made durable, or given up, at the end. */
  readonly targetCache?: CacheMode | undefined;
  /** How the sources are opened beside that, each by itself. */
  readonly sourceOptions?: readonly (SourceOptions | undefined)[] | undefined;
  /** How the target is opened beside that. */
  readonly targetOptions?: TargetOptions | undefined;
  /** Told what the repair of an existing target that was not closed cleanly finds and does. */
  readonly onTargetFinding?: ((finding: CheckFinding) => void) | undefined;
  /** Told, in a line without its end, what was asked of a new target that the file system does not know. */
  readonly onTargetWarning?: ((message: string) => void) | undefined;
  readonly aio?: AioMode | undefined;
  readonly forceShare?: boolean | undefined;
  /**
   * A digest of each source, by the bytes of its file and of its disk. What is expected is one of them; of
   * images that is known before anything is made, of a source that comes once when the target is complete.
   */
  readonly checksum?:
    { readonly algorithm: string; readonly expected?: string | undefined } | undefined;
  /** Told of the digests of each source. */
  readonly onChecksum?: ((result: ChecksumResult, index: number) => void) | undefined;
  /** What failures call a source that has no name; default `the stream`. */
  readonly streamName?: string | undefined;
  /** The sources may be anybody's: one that names other files is refused. */
  readonly untrusted?: boolean | undefined;
  /** Told at the end what the queues of the target have done, and those of each source. */
  readonly onStats?: ((target: ImageStats, sources: readonly ImageStats[]) => void) | undefined;
}

/** What is said of each source by itself; nothing, of some. */
const eachSource: OptionRule = (value) => {
  if (!Array.isArray(value)) return 'a list of options is expected';
  const check = optionsBy(openImageRules);
  const said = (value as readonly unknown[]).filter((each) => each !== undefined);
  return said.map((each) => check(each)).find((wrong) => wrong !== undefined);
};

const digest: OptionRule = (value) =>
  typeof value === 'string' && isDigest(value) ? undefined : 'a digest that Node knows is expected';

/** Their rules. */
export const convertRules: OptionRules<ConvertOptions> = {
  from: imageFormat,
  to: imageFormat,
  options: createOptions,
  compress: flag,
  parallel: wholeNumber(1, 1024),
  queues: queueCount,
  outOfOrder: flag,
  copyOffload: flag,
  roughProgress: flag,
  skipCreate: flag,
  sparseSize: wholeNumber(0, 16 * 1024 * 1024),
  targetIsZero: flag,
  snapshot: snapshotChoice,
  bitmaps: flag,
  skipBrokenBitmaps: flag,
  salvage: flag,
  onWarning: callback,
  backing: text,
  backingFormat,
  rateLimit: positive,
  sourceCache: cacheMode,
  targetCache: cacheMode,
  sourceOptions: eachSource,
  targetOptions: optionsBy(openImageRules),
  onTargetFinding: callback,
  onTargetWarning: callback,
  aio: aioMode,
  forceShare: flag,
  streamName: text,
  checksum: optionsBy({ algorithm: digest, expected: text }),
  onChecksum: callback,
  untrusted: flag,
  onStats: callback,
  signal: abortSignal,
  onProgress: callback,
};

/** How sources are opened. */
export function sourceOpening(options: ConvertOptions): SourceOpening {
  return {
    queues: options.queues,
    algorithm: options.checksum?.algorithm,
    streamName: options.streamName ?? 'the stream',
    optionsOf: (index) => ({
      format: options.from,
      cache: options.sourceCache,
      aio: options.aio,
      snapshot: options.snapshot,
      forceShare: options.forceShare,
      untrusted: options.untrusted,
      signal: options.signal,
      // A copy of what somebody is writing to would be of no moment.
      shareWriting: false,
      ...options.sourceOptions?.[index],
      readOnly: true,
    }),
  };
}
