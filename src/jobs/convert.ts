/** Converting images: one or several sources, read as one disk, into a target of any format. */
import { stat } from 'node:fs/promises';
import { hostPath } from '../byte-names.js';
import { CowherdError } from '../errors.js';
import type {
  AioMode,
  CacheMode,
  CheckFinding,
  CreateOptions,
  Image,
  ImageFormat,
  ImageStats,
  LongOperationOptions,
  OpenImageOptions,
} from '../image/api.js';
import { createImage, removeImage } from '../image/create.js';
import { canCompress, defaultFormatName } from '../image/formats.js';
import { ImageFiller, canClone, isFlat, needsCompressedWrites } from '../image/data-copy.js';
import { closeEach } from '../image/cleanup-steps.js';
import { locksFiles, openImage } from '../image/open.js';
import {
  aioMode,
  cacheMode,
  imageFormat,
  openImageRules,
  queueCount,
  snapshotChoice,
} from '../image/open-options.js';
import {
  type OptionRule,
  type OptionRules,
  abortSignal,
  callback,
  checkOptions,
  flag,
  options as optionsBy,
  positive,
  text,
  wholeNumber,
} from '../image/option-check.js';
import { createOptions } from '../image/create-options.js';
import { type PathLike, pathOf } from '../image/path.js';
import { dataFilePath, resolveReference } from '../image/reference.js';
import { type SourcePart, concatenate } from './concatenation.js';
import { Copier } from './copier.js';
import { openQueues } from './queues.js';

const defaultSparseBytes = 4096;

/** What can be said of each source. */
export type SourceOptions = Pick<
  OpenImageOptions,
  | 'forceShare'
  | 'cache'
  | 'aio'
  | 'cacheSize'
  | 'http'
  | 'window'
  | 'dataFile'
  | 'backingFile'
  | 'backingFormat'
>;

/** What can be said of an existing target. */
export type TargetOptions = Pick<
  OpenImageOptions,
  | 'readOnly'
  | 'cache'
  | 'aio'
  | 'cacheSize'
  | 'detectZeroes'
  | 'overlapCheck'
  | 'window'
  | 'dataFile'
  | 'backingFile'
  | 'backingFormat'
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
  /** How an existing target is opened beside that. */
  readonly targetOptions?: TargetOptions | undefined;
  /** Told what the repair of an existing target that was not closed cleanly finds and does. */
  readonly onTargetFinding?: ((finding: CheckFinding) => void) | undefined;
  /** Told, in a line without its end, what was asked of a new target that the file system does not know. */
  readonly onTargetWarning?: ((message: string) => void) | undefined;
  readonly aio?: AioMode | undefined;
  readonly forceShare?: boolean | undefined;
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

const convertRules: OptionRules<ConvertOptions> = {
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
  salvage: flag,
  onWarning: callback,
  backing: text,
  backingFormat: imageFormat,
  rateLimit: positive,
  sourceCache: cacheMode,
  targetCache: cacheMode,
  sourceOptions: eachSource,
  targetOptions: optionsBy(openImageRules),
  onTargetFinding: callback,
  onTargetWarning: callback,
  aio: aioMode,
  forceShare: flag,
  untrusted: flag,
  onStats: callback,
  signal: abortSignal,
  onProgress: callback,
};

/**
 * Copies the guest content of one or several images, one after the other, into a target image.
 * If it fails or is cancelled, a target that it created is removed.
 *
 * @throws CowherdError; ERR_COWHERD_ABORTED if the signal said so
 */
export async function convert(
  source: PathLike | readonly PathLike[],
  targetName: PathLike,
  options: ConvertOptions = {},
): Promise<void> {
  const target = pathOf(targetName);
  const sources = (Array.isArray(source) ? (source as PathLike[]) : [source as PathLike]).map(
    pathOf,
  );
  checkOptions(options, convertRules, target);
  checkCombination(sources, target, options);
  const parts: SourcePart[] = [];
  try {
    for (const [index, path] of sources.entries()) {
      parts.push(await openSource(path, options, options.sourceOptions?.[index]));
    }
    await refuseOverwriting(parts, target, options);
    const size = parts.reduce((sum, { image }) => sum + image.size, 0);
    if (options.skipCreate === true) await copyInto(parts, target, size, options, false);
    else await createAndCopy(parts, target, size, options);
  } catch (error) {
    throw options.signal?.aborted === true ? aborted(target, error) : error;
  } finally {
    await closeEach(parts.map(({ image }) => image));
  }
}

function checkCombination(
  sources: readonly string[],
  target: string,
  options: ConvertOptions,
): void {
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: target });
  };
  if (sources.length === 0) refuse('Must specify at least one source image');
  if (options.targetIsZero === true && options.skipCreate !== true) {
    refuse('--target-is-zero requires use of -n flag');
  }
  const backing = backingOf(options);
  if (options.targetIsZero === true && backing !== undefined) {
    refuse('Cannot use --target-is-zero when the destination image has a backing file');
  }
  if (options.compress === true && !canCompress(options.to ?? defaultFormatName)) {
    refuse('Compression not supported for this file format');
  }
  if (options.compress === true && options.options?.dataFile !== undefined) {
    refuse('Compression and data file cannot be used together');
  }
  if (options.copyOffload === true) {
    const { sparseSize, compress, salvage } = options;
    if (sparseSize !== undefined) refuse('Cannot enable copy offloading when -S is used');
    if (compress === true) refuse('Cannot enable copy offloading when -c is used');
    if (salvage === true) refuse('Cannot use copy offloading in salvaging mode');
  }
  if (options.snapshot !== undefined && sources.length > 1) {
    refuse('No support for concatenating multiple snapshot');
  }
  if (backing !== undefined && sources.length > 1) {
    refuse(
      'Having a backing file for the target makes no sense when concatenating multiple input images',
    );
  }
}

/** Opens an image; a failure to open one below it names it too. */
async function openNamed(path: string, options: OpenImageOptions): Promise<Image> {
  try {
    return await openImage(path, options);
  } catch (error) {
    if (!(error instanceof CowherdError) || !error.message.startsWith(belowPrefix)) throw error;
    throw openingFailure(path, '', error);
  }
}

function openingFailure(path: string, what: string, cause: CowherdError): CowherdError {
  const message = `Could not open '${path}': ${what}${cause.message}`;
  return new CowherdError(cause.code, message, { filename: path, cause });
}

const belowPrefix = 'Could not open backing file: ';

async function openSource(
  path: string,
  options: ConvertOptions,
  own: SourceOptions | undefined,
): Promise<SourcePart> {
  const image = await openNamed(path, {
    format: options.from,
    cache: options.sourceCache,
    aio: options.aio,
    snapshot: options.snapshot,
    forceShare: options.forceShare,
    untrusted: options.untrusted,
    signal: options.signal,
    // A copy of what somebody is writing to would be of no moment.
    shareWriting: false,
    ...own,
    readOnly: true,
  });
  try {
    return { image, queues: await openQueues(image, options.queues) };
  } catch (error) {
    await image.close().catch(() => undefined);
    throw error;
  }
}

/** Refuses a target that is a source, or a file a source stands on, before it is touched. */
async function refuseOverwriting(
  parts: readonly SourcePart[],
  target: string,
  { skipCreate, options }: ConvertOptions,
): Promise<void> {
  const written = [target];
  if (skipCreate !== true && options?.dataFile !== undefined) {
    written.push(dataFilePath(target, options.dataFile));
  }
  for (const path of written) {
    const existing = await stat(hostPath(path)).catch(() => undefined);
    if (existing === undefined) continue;
    for (const read of await filesBelow(parts)) {
      const file = await stat(hostPath(read)).catch(() => undefined);
      if (file?.dev === existing.dev && file.ino === existing.ino) {
        throw new CowherdError(
          'ERR_COWHERD_INVALID_ARGUMENT',
          `'${path}' is the source, or part of its backing chain; it would be overwritten`,
          { filename: path },
        );
      }
    }
  }
}

/** Every file that the sources are read from. */
async function filesBelow(parts: readonly SourcePart[]): Promise<readonly string[]> {
  const files: string[] = [];
  for (const { image } of parts) {
    for (let link: Image | undefined = image; link !== undefined; link = link.backing) {
      files.push(link.filename);
      const { children } = await link.info();
      for (const { filename } of children) files.push(filename);
    }
  }
  return files;
}

async function createAndCopy(
  parts: readonly SourcePart[],
  target: string,
  size: number,
  options: ConvertOptions,
): Promise<void> {
  await tryBacking(target, options);
  // Removes what it made if it fails; what it has not touched stays.
  await createImage(target, {
    ...options.options,
    format: options.to ?? defaultFormatName,
    size,
    signal: options.signal,
    onWarning: options.onTargetWarning,
    backingUnchecked: true,
    durable: targetCacheOf(options) !== 'unsafe',
    ...(options.backing !== undefined && { backingFile: options.backing }),
    ...(options.backingFormat !== undefined && { backingFormat: options.backingFormat }),
  });
  try {
    await copyInto(parts, target, size, options, true);
  } catch (error) {
    // Nothing half-written may be taken for the result.
    await removeImage(target, options.options);
    throw error;
  }
}

/** Sees whether the target's backing file can be opened, before a file of the target's name is lost. */
async function tryBacking(target: string, options: ConvertOptions): Promise<void> {
  const name = backingOf(options);
  if (name === undefined) return;
  const format = options.backingFormat ?? options.options?.backingFormat;
  try {
    const backing = await openImage(resolveReference(target, name), { format, readOnly: true });
    await backing.close();
  } catch (error) {
    throw error instanceof CowherdError ? openingFailure(target, belowPrefix, error) : error;
  }
}

async function copyInto(
  parts: readonly SourcePart[],
  path: string,
  size: number,
  options: ConvertOptions,
  created: boolean,
): Promise<void> {
  const target = await openNamed(path, {
    format: options.to ?? (created ? defaultFormatName : undefined),
    cache: targetCacheOf(options),
    aio: options.aio,
    // Nobody else has it, and without the addon it could not be locked.
    locking: created && !locksFiles ? 'off' : 'auto',
    inOrder: options.outOfOrder !== true,
    // One that is killed shall need no repair, and laziness spares a conversion nothing.
    lazyRefcounts: false,
    onFinding: options.onTargetFinding,
    ...options.targetOptions,
  });
  let failed = true;
  try {
    if (target.size < size) {
      throw new CowherdError(
        'ERR_COWHERD_INVALID_ARGUMENT',
        `'${path}': output file is smaller than input file`,
        { filename: path },
      );
    }
    const source = concatenate(parts);
    const compress = options.compress === true || needsCompressedWrites(target);
    const { outOfOrder = false } = options;
    const isFilledInOrder = created && !isPreallocated(options) && !outOfOrder;
    if (isFilledInOrder && !isFlat(target)) {
      await target.reserve(0, Math.min(size, await storedBytes(parts)));
    }
    const sparseSize = options.sparseSize ?? defaultSparseBytes;
    const isFilled = isFilledInOrder && canFill(options);
    const isCloned =
      isFilled &&
      options.sparseSize === undefined &&
      parts.every(({ image }) => canClone(image, target));
    const offload = isCloned || options.copyOffload === true;
    const copier = new Copier({
      source,
      targets: await openQueues(target, outOfOrder ? options.queues : 1),
      filler: isFilled ? ImageFiller.of(target, { sparseSize, offload }) : undefined,
      outOfOrder,
      size,
      parallel: options.parallel,
      granularity: compress ? (target.clusterSize ?? 1) : 1,
      compress,
      sparseSize,
      zeroFrom: await zeroesFrom(target, options, created),
      reserveAhead: isFilledInOrder && isFlat(target) && !isCloned,
      leaveBacking: backingOf(options) !== undefined,
      salvage: options.salvage ?? false,
      rateLimit: options.rateLimit,
      onWarning: options.onWarning,
      onProgress: options.onProgress,
      roughProgress: options.roughProgress ?? false,
      signal: options.signal,
    });
    await copier.run();
    await target.flush();
    options.onStats?.(
      target.stats(),
      parts.map(({ image }) => image.stats()),
    );
    failed = false;
  } finally {
    // After a failure it is the failure that counts, not what closing has to say.
    await target.close().catch((error: unknown) => {
      if (!failed) throw error;
    });
  }
}

/** Whether data may be copied where they lie, past the buffers and engines that were asked for. */
function canFill({ compress, salvage, rateLimit, aio, targetCache }: ConvertOptions): boolean {
  const isDirect = targetCache === 'none' || targetCache === 'directsync';
  const isPlain = compress !== true && salvage !== true && rateLimit === undefined;
  return isPlain && !isDirect && (aio ?? 'auto') === 'auto';
}

/** Bytes that the files of the sources occupy: about what is to be copied, unless it is compressed. */
async function storedBytes(parts: readonly SourcePart[]): Promise<number> {
  let bytes = 0;
  for (const { image } of parts) {
    for (let link: Image | undefined = image; link !== undefined; link = link.backing) {
      const info = await link.info();
      for (const { blockDevice, fileLength, actualSize = 0 } of [info, ...info.children]) {
        bytes += blockDevice ? fileLength : actualSize;
      }
    }
  }
  return bytes;
}

/** Guest offset in bytes from which on what is not written to the target reads as zeroes. */
async function zeroesFrom(
  target: Image,
  options: ConvertOptions,
  created: boolean,
): Promise<number> {
  if (options.targetIsZero === true) return 0;
  if (!created) return Infinity;
  const { blockDevice } = await target.info();
  const isKnown = !blockDevice || (!isFlat(target) && !isPreallocated(options));
  return isKnown ? (target.backing?.size ?? 0) : Infinity;
}

/** The name of the target's backing file, from either of the options that can give it. */
function backingOf({ backing, options }: ConvertOptions): string | undefined {
  return backing ?? options?.backingFile;
}

function targetCacheOf({ targetCache = 'unsafe' }: ConvertOptions): CacheMode {
  return targetCache;
}

/** Whether the target was created with room for more than it needs at first. */
function isPreallocated({ options }: ConvertOptions): boolean {
  return (options?.preallocation ?? 'off') !== 'off';
}

function aborted(target: string, cause: unknown): CowherdError {
  return new CowherdError('ERR_COWHERD_ABORTED', `Conversion to '${target}' was cancelled`, {
    filename: target,
    cause,
  });
}
