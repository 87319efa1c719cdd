/** Converting images: one or several sources, read as one disk, into a target of any format. */
import { stat } from 'node:fs/promises';
import { hostPath } from '../byte-names.js';
import { CowherdError, problemWith } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { CacheMode, CreateImageOptions, OpenImageOptions } from '../image/api/options.js';
import {
  createTarget,
  decryptionOf,
  filesMadeWith,
  openEndedBytes,
  removeImage,
} from '../image/graph/create.js';
import { canCompress, defaultFormatName, formatByDriver } from '../image/names/formats.js';
import {
  ImageFiller,
  beginsAsNoise,
  canClone,
  endImage,
  isFlat,
  needsCompressedWrites,
} from '../image/graph/data-copy.js';
import { isImage } from '../image/graph/is-image.js';
import { locksFiles, openImage, openTarget } from '../image/graph/open.js';
import { checkOptions } from '../image/options/option-check.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import { resolveReference } from '../image/names/reference.js';
import { bitmapsToCopy, checkBitmapTarget, copyBitmaps } from './bitmaps.js';
import type { SourcePart } from './concatenation.js';
import {
  type ConversionSource,
  type OpenedSource,
  backingFailure,
  openConversionSource,
  openNamed,
} from './conversion-source.js';
import { type ConvertOptions, convertRules, sourceOpening } from './convert-options.js';
import { checkDigests } from './source-digests.js';
import { Copier, type CopyPlan } from './copier.js';
import { withQueues } from './queues.js';

const defaultSparseBytes = 4096;

/**
 * Copies the guest content of one or several images, one after the other, into a target image.
 * If it fails or is cancelled, a target that it created is removed. Images that are open stay so; what is
 * written to a source meanwhile may be in the target or not.
 *
 * @throws CowherdError; ERR_COWHERD_ABORTED if the signal said so
 */
export async function convert(
  source: ConversionSource | readonly ConversionSource[],
  target: PathLike | Image,
  options: ConvertOptions = {},
): Promise<void> {
  const name = isImage(target) ? target.filename : pathOf(target);
  const sources = (Array.isArray(source) ? source : [source]) as readonly ConversionSource[];
  checkOptions(options, convertRules, name);
  if (sources.every(isImage)) refuseOpening(options, openingOfSources, sources[0]?.filename);
  if (isImage(target)) refuseOpening(options, openingOfTarget, name);
  const isCreated = options.skipCreate !== true && !isImage(target);
  checkCombination(sources.length, name, { ...options, skipCreate: !isCreated });
  let opened: OpenedSource | undefined;
  try {
    opened = await openConversionSource(sources, sourceOpening(options));
    await refuseOverwriting(opened, target, options);
    if (options.bitmaps === true) await bitmapsToCopy(imagesOf(opened), name, options);
    if (isCreated && opened.size === undefined && (await openEndedSize(options)) === undefined) {
      opened = await opened.spooled();
    }
    if (opened.progress === undefined) await checkDigests(opened, options);
    if (isImage(target)) await copyInto(opened, target, options, 'existing');
    else if (isCreated) await createAndCopy(opened, name, options);
    else await openAndCopy(opened, name, options, 'existing');
  } catch (error) {
    throw options.signal?.aborted === true ? aborted(name, error) : error;
  } finally {
    await opened?.close();
  }
}

function imagesOf({ parts }: OpenedSource): readonly Image[] {
  return parts.map(({ image }) => image);
}

/** What says how sources are opened, and a target is opened or made. */
const openingOfSources = [
  'from',
  'snapshot',
  'sourceCache',
  'sourceOptions',
  'forceShare',
] as const;
const openingOfTarget = [
  ...(['to', 'options', 'backing', 'backingFormat', 'skipCreate'] as const),
  ...(['targetCache', 'targetOptions', 'onTargetFinding'] as const),
] as const;

/** @throws ERR_COWHERD_INVALID_ARGUMENT if it is said how an image is opened that is open */
function refuseOpening(
  options: ConvertOptions,
  keys: readonly (keyof ConvertOptions)[],
  filename: string | undefined,
): void {
  const given = keys.find((key) => options[key] !== undefined);
  if (given === undefined) return;
  const message = `'${filename ?? ''}' is open already: '${given}' says how an image is opened or made`;
  throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename });
}

/** Bytes that a target can come to that is made before its size is known; undefined if none can. */
function openEndedSize(options: ConvertOptions): Promise<number | undefined> {
  return openEndedBytes(options.to ?? defaultFormatName, options.options ?? {});
}

const noCompression = 'Compression and data file cannot be used together';

function checkCombination(sources: number, target: string, options: ConvertOptions): void {
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: target });
  };
  if (sources === 0) refuse('Must specify at least one source image');
  if (options.skipBrokenBitmaps === true && options.bitmaps !== true) {
    refuse('Use of --skip-broken-bitmaps requires --bitmaps');
  }
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
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', noCompression, {
      ...{ filename: target, offset: 0, reason: 'Operation not supported' },
    });
  }
  if (options.copyOffload === true) {
    const { sparseSize, compress, salvage } = options;
    if (sparseSize !== undefined) refuse('Cannot enable copy offloading when -S is used');
    if (compress === true) refuse('Cannot enable copy offloading when -c is used');
    if (salvage === true) refuse('Cannot use copy offloading in salvaging mode');
  }
  if (options.snapshot !== undefined && sources > 1) {
    refuse('No support for concatenating multiple snapshot');
  }
  if (backing !== undefined && sources > 1) {
    refuse(
      'Having a backing file for the target makes no sense when concatenating multiple input images',
    );
  }
}

/** Refuses a target that is a source, or a file a source stands on, before it is touched. */
async function refuseOverwriting(
  source: OpenedSource,
  target: PathLike | Image,
  { skipCreate, options, to = defaultFormatName }: ConvertOptions,
): Promise<void> {
  const name = isImage(target) ? target.filename : pathOf(target);
  if (source.parts.some(({ image }) => image === target)) throw overwritten(name);
  const written = [name];
  if (skipCreate !== true && !isImage(target)) {
    const size = source.size ?? 0;
    written.push(...(await filesMadeWith(name, { ...options, format: to, size })));
  }
  for (const path of written) {
    const existing = await stat(hostPath(path)).catch(() => undefined);
    if (existing === undefined) continue;
    for (const read of await filesBelow(source)) {
      const file = await stat(hostPath(read)).catch(() => undefined);
      if (file?.dev === existing.dev && file.ino === existing.ino) {
        throw overwritten(path);
      }
    }
  }
}

function overwritten(filename: string): CowherdError {
  const message = `'${filename}' is the source, or part of its backing chain; it would be overwritten`;
  return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename });
}

/** Every file that the sources are read from. */
async function filesBelow({ parts, filenames }: OpenedSource): Promise<readonly string[]> {
  const files = [...filenames];
  for (const { image } of parts) {
    for (let link: Image | undefined = image; link !== undefined; link = link.backing) {
      files.push(link.filename);
      const { children } = await link.info();
      for (const { filename } of children) files.push(filename);
    }
  }
  return files;
}

/** @param source whose size is known, or may be unknown when the target is made */
async function createAndCopy(
  source: OpenedSource,
  target: string,
  options: ConvertOptions,
): Promise<void> {
  await tryBacking(target, options);
  const isOpenEnded = source.size === undefined;
  const size = source.size ?? (await openEndedSize(options));
  const creation: CreateImageOptions = {
    ...options.options,
    format: options.to ?? defaultFormatName,
    ...(size !== undefined && { size }),
    signal: options.signal,
    onWarning: options.onTargetWarning,
    backingUnchecked: true,
    durable: targetCacheOf(options) !== 'unsafe',
    ...(options.backing !== undefined && { backingFile: options.backing }),
    ...(options.backingFormat !== undefined && { backingFormat: options.backingFormat }),
  };
  // Removes what it made if it fails; what it has not touched stays.
  const made = await createTarget(target, creation, { isOpenEnded, isFilled: true });
  try {
    await openAndCopy(source, target, options, isOpenEnded ? 'open-ended' : 'new');
  } catch (error) {
    // Nothing half-written may be taken for the result.
    await removeImage(made);
    throw error;
  }
}

/** Sees whether the target's backing file can be opened, before a file of the target's name is lost. */
async function tryBacking(target: string, options: ConvertOptions): Promise<void> {
  const name = backingOf(options);
  if (name === undefined) return;
  const format = formatByDriver(options.backingFormat ?? options.options?.backingFormat);
  try {
    const { secrets } = options.targetOptions ?? {};
    const opening = { format, readOnly: true, secrets };
    const backing = await openImage(resolveReference(target, name), opening);
    await backing.close();
  } catch (error) {
    throw error instanceof CowherdError ? backingFailure(target, error) : error;
  }
}

/** What a target was before. */
type TargetState = 'existing' | 'new' | 'open-ended';

async function openAndCopy(
  opened: OpenedSource,
  path: string,
  options: ConvertOptions,
  state: TargetState,
): Promise<void> {
  const created = state !== 'existing';
  const target = await openTargetNamed(path, state === 'open-ended', {
    format: options.to ?? (created ? defaultFormatName : undefined),
    cache: targetCacheOf(options),
    aio: options.aio,
    // Nobody else has it, and without the addon it could not be locked.
    locking: created && !locksFiles ? 'off' : 'auto',
    inOrder: options.outOfOrder !== true,
    // One that is killed shall need no repair, and laziness spares a conversion nothing.
    lazyRefcounts: false,
    onFinding: options.onTargetFinding,
    unpack: false,
    encrypt: created ? decryptionOf(options.options) : undefined,
    ...options.targetOptions,
  });
  try {
    await copyInto(opened, target, options, state);
  } catch (error) {
    // After a failure it is the failure that counts, not what closing has to say.
    await target.close().catch(() => undefined);
    throw error;
  }
  await target.close();
}

/** Copies into an image that is open, and stays so. */
export async function copyInto(
  opened: OpenedSource,
  target: Image,
  options: ConvertOptions,
  state: TargetState,
): Promise<void> {
  const { filename } = target;
  if (target.size < (opened.size ?? 0)) {
    throw problemWith(
      'ERR_COWHERD_INVALID_ARGUMENT',
      filename,
      'output file is smaller than input file',
    );
  }
  if (options.bitmaps === true) await checkBitmapTarget(target);
  const created = state !== 'existing';
  await withQueues(
    target,
    options.outOfOrder === true ? (options.queues ?? 1) : 1,
    async (targets) => {
      const source = opened.source(target.size);
      const { parts } = opened;
      const compress = options.compress === true || needsCompressedWrites(target);
      const { outOfOrder = false } = options;
      const isFilledInOrder = created && !isPreallocated(options) && !outOfOrder;
      if (isFilledInOrder && !isFlat(target) && parts.length > 0) {
        await target.reserve(0, Math.min(source.size, await storedBytes(parts)));
      }
      const sparseSize = options.sparseSize ?? defaultSparseBytes;
      const zeroFrom = await zeroesFrom(target, options, created);
      // Copied where it lies, what is found to be zeroes is not written.
      const isFilled = isFilledInOrder && parts.length > 0 && canFill(options) && zeroFrom === 0;
      const isCloned =
        isFilled &&
        options.sparseSize === undefined &&
        parts.every(({ image }) => canClone(image, target));
      const offload = isCloned || options.copyOffload === true;
      const copier = new Copier({
        source,
        targets,
        filler: isFilled ? ImageFiller.of(target, { sparseSize, offload }) : undefined,
        outOfOrder,
        parallel: options.parallel,
        granularity: compress ? (target.clusterSize ?? 1) : 1,
        compress,
        sparseSize,
        copyZeroes: sparseSize === 0,
        zeroFrom,
        reserveAhead: isFilledInOrder && parts.length > 0 && isFlat(target) && !isCloned,
        leaveBacking: backingOf(options) !== undefined,
        salvage: options.salvage ?? false,
        rateLimit: options.rateLimit,
        onWarning: options.onWarning,
        ...progressOf(opened, options),
        signal: options.signal,
      });
      await copier.run();
      await target.flush();
      if (opened.progress !== undefined) await checkDigests(opened, options);
      if (options.bitmaps === true) {
        const bitmaps = await bitmapsToCopy(imagesOf(opened), filename, options);
        await copyBitmaps(parts[0].image, bitmaps, target, options);
      }
      if (state === 'open-ended') await endImage(target, opened.wholeSize);
      if (opened.progress !== undefined) {
        options.onProgress?.({ doneBytes: opened.wholeSize, totalBytes: opened.wholeSize });
      }
      options.onStats?.(target.stats(), opened.stats());
    },
  );
}

/** What comes once tells by itself how far it is, if anything does. */
function progressOf(
  { progress }: OpenedSource,
  { onProgress, roughProgress = false }: ConvertOptions,
): Pick<CopyPlan, 'onProgress' | 'roughProgress'> {
  if (progress === undefined || onProgress === undefined) return { onProgress, roughProgress };
  return {
    onProgress: () => {
      onProgress(progress());
    },
    roughProgress: true,
  };
}

async function openTargetNamed(
  path: string,
  isOpenEnded: boolean,
  options: OpenImageOptions,
): Promise<Image> {
  return isOpenEnded ? await openTarget(path, options, true) : await openNamed(path, options);
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
  if (!created || beginsAsNoise(target)) return Infinity;
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
