/**
 * Opening an image and what it stands on: probing its format, its external data file, and its
 * backing chain under the caller's policy.
 */
import { realpath } from 'node:fs/promises';
import { hostPath, nameOfBytes } from '../byte-names.js';
import { QueueCounters } from '../engine/counters.js';
import { CowherdError, nameMemoryError, printable } from '../errors.js';
import { isForeignFormat, probeFormat } from '../format/probe.js';
import {
  Incompatible,
  type Qcow2Header,
  backingFormatOf,
  dataFileNameOf,
} from '../format/qcow2/layout/header.js';
import { openQcow2, readQcow2Header } from '../format/qcow2/image.js';
import { openRaw } from '../format/raw/image.js';
import { defaultCacheBytes, maxChainDepth } from '../limits.js';
import { openStorageFile } from '../storage/open-file.js';
import type { StorageFile } from '../storage/storage.js';
import type { Image, ImageFormat, OpenImageOptions } from './api.js';
import { closeEach } from './cleanup-steps.js';
import { checkOpenOptions } from './open-options.js';
import { noteOpen } from './left-open.js';
import { OpenedImage } from './opened-image.js';
import { type PathLike, pathOf } from './path.js';
import { findDataFile, formatInReference, resolveReference } from './reference.js';
import { allocateSharedState } from './shared-state.js';

export { locksFiles } from '../storage/open-file.js';

const formats: readonly ImageFormat[] = ['qcow2', 'raw'];

/**
 * Opens an image, its backing chain and its external data file.
 *
 * @param path name of the image file
 * @throws CowherdError naming the file, if an option is wrong, or any of them cannot be opened or is no valid image
 */
export async function openImage(path: PathLike, options: OpenImageOptions = {}): Promise<Image> {
  const filename = pathOf(path);
  checkOpenOptions(filename, options);
  const image = await openLink(filename, options, []);
  image.onClosed(noteOpen(image, !image.readOnly));
  return image;
}

/** Opens an image that lies in a storage file already open; the image then owns the file. */
export async function openImageOn(
  file: StorageFile,
  options: OpenImageOptions = {},
): Promise<Image> {
  checkOpenOptions(file.filename, options);
  try {
    return await openOn(file, options, [file.filename]);
  } catch (error) {
    throw nameMemoryError(error, file.filename);
  }
}

async function openLink(
  path: string,
  options: OpenImageOptions,
  above: readonly string[],
): Promise<OpenedImage> {
  checkFormat(options.format);
  const file = await openImageFile(path, options);
  try {
    const identity = nameOfBytes(await realpath(hostPath(path), 'buffer'));
    if (above.includes(identity)) {
      throw new CowherdError(
        'ERR_COWHERD_BACKING',
        `Backing file '${path}' creates an infinite loop.`,
        { filename: path },
      );
    }
    if (above.length >= maxChainDepth) {
      throw new CowherdError(
        'ERR_COWHERD_BACKING',
        `'${path}': the backing chain is longer than ${maxChainDepth} images`,
        { filename: path },
      );
    }
    return await openOn(file, options, [...above, identity]);
  } catch (error) {
    await file.close().catch(() => undefined);
    throw nameMemoryError(error, path);
  }
}

/**
 * Opens the file of an image. A raw disk that is only read may be written to by others meanwhile; what
 * has tables may not, and whether a file has shows when it is looked at.
 */
async function openImageFile(path: string, options: OpenImageOptions): Promise<StorageFile> {
  const { format, shareWriting = true } = options;
  const readOnly = options.readOnly === true || options.snapshot !== undefined;
  const opening = {
    readOnly,
    cache: options.cache ?? 'writeback',
    aio: options.aio ?? 'auto',
    forceShare: options.forceShare ?? false,
    locking: options.locking ?? 'auto',
  } as const;
  const sharesWriting = shareWriting && format !== 'qcow2';
  const file = await openStorageFile(path, { ...opening, sharesWriting });
  if (!readOnly || !sharesWriting || format !== undefined) return file;
  let again: StorageFile;
  try {
    if ((await probeFormat(file)) === 'raw') return file;
    // The first is still open, and with it the ring that both use.
    again = await openStorageFile(path, opening);
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
  await file.close();
  return again;
}

async function openOn(
  file: StorageFile,
  options: OpenImageOptions,
  chain: readonly string[],
): Promise<OpenedImage> {
  const format = options.format ?? (await probeImageFormat(file));
  if (format === 'qcow2') return openQcow2Image(file, options, chain);
  if (options.snapshot !== undefined) {
    throw new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `'${file.filename}': the raw format has no internal snapshots`,
      { filename: file.filename },
    );
  }
  const shared = allocateSharedState();
  return new OpenedImage({
    file,
    dataFile: undefined,
    format: await openRaw(file),
    backing: undefined,
    probed: options.format === undefined,
    options,
    shared,
    counters: QueueCounters.take(shared.counters),
  });
}

async function openQcow2Image(
  file: StorageFile,
  options: OpenImageOptions,
  chain: readonly string[],
): Promise<OpenedImage> {
  const forCheck = options.forCheck === true;
  const { overlapCheck = 'cached' } = options;
  const header = await readQcow2Header(file, { forCheck });
  const opened: { close(): Promise<void> }[] = [];
  try {
    let dataFile: StorageFile | undefined;
    if ((header.incompatibleFeatures & Incompatible.externalDataFile) !== 0) {
      dataFile = await openDataFile(file, dataFileNameOf(header), options);
      opened.push(dataFile);
    }
    const readOnly = options.readOnly === true || options.snapshot !== undefined;
    const shared = allocateSharedState();
    const counters = QueueCounters.take(shared.counters);
    const format = await openQcow2(file, header, {
      counters,
      dataFile,
      readOnly,
      forCheck,
      forInfo: options.forInfo === true,
      onFinding: options.onFinding,
      cacheBytes: options.cacheSize ?? defaultCacheBytes,
      overlapCheck,
      lazyRefcounts: options.lazyRefcounts,
      inOrder: options.inOrder ?? false,
      snapshot: options.snapshot,
    });
    let backing: OpenedImage | undefined;
    const below = belowOf(file.filename, header, options);
    if (below !== undefined) {
      backing = await openBacking(below, options, chain);
      opened.push(backing);
    }
    return new OpenedImage({
      file,
      dataFile,
      format,
      backing,
      probed: false,
      options,
      shared,
      counters,
    });
  } catch (error) {
    await closeEach(opened).catch(() => undefined);
    throw error;
  }
}

/** Whether files that an image names may not be opened. */
function mayNotReachOut({ backing, untrusted }: OpenImageOptions): boolean {
  return backing === 'deny' || (untrusted === true && backing !== 'allow');
}

/** The image to be opened below another one. */
interface Below {
  readonly path: string;
  readonly format: string | undefined;
}

/**
 * The backing file that the caller says, or that the image names.
 *
 * @throws ERR_COWHERD_BACKING if the image names one and may not, ERR_COWHERD_UNSUPPORTED
 */
function belowOf(
  filename: string,
  header: Qcow2Header,
  options: OpenImageOptions,
): Below | undefined {
  const { backing, backingFile, backingFormat } = options;
  if (backing === 'ignore') return undefined;
  if (backingFile !== undefined) return { path: backingFile, format: backingFormat };
  const name = header.backingFile;
  if (name === undefined) return undefined;
  if (mayNotReachOut(options)) {
    throw new CowherdError(
      'ERR_COWHERD_BACKING',
      `'${filename}' has the backing file '${printable(name)}', and opening backing files is denied`,
      { filename },
    );
  }
  const format = backingFormatOf(header) ?? formatInReference(name);
  return { path: resolveReference(filename, name), format };
}

async function openBacking(
  { path, format }: Below,
  options: OpenImageOptions,
  chain: readonly string[],
): Promise<OpenedImage> {
  try {
    checkFormat(format);
    return await openLink(
      path,
      {
        ...options,
        format: format as ImageFormat | undefined,
        readOnly: true,
        snapshot: undefined,
        lazyRefcounts: undefined,
        backingFile: undefined,
        backingFormat: undefined,
        dataFile: undefined,
        forCheck: false,
        forInfo: false,
      },
      chain,
    );
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    throw new CowherdError(error.code, `Could not open backing file: ${error.message}`, {
      filename: error.filename ?? path,
      cause: error,
    });
  }
}

async function openDataFile(
  file: StorageFile,
  name: string | undefined,
  options: OpenImageOptions,
): Promise<StorageFile> {
  const { filename } = file;
  if (options.dataFile !== undefined) return await openDataFileAt(options.dataFile, file, options);
  if (name === undefined) {
    throw new CowherdError(
      'ERR_COWHERD_INVALID_IMAGE',
      `Could not open '${filename}': the image names no external data file`,
      { filename },
    );
  }
  if (mayNotReachOut(options)) {
    throw new CowherdError(
      'ERR_COWHERD_BACKING',
      `'${filename}' has the external data file '${printable(name)}', and opening other files is denied`,
      { filename },
    );
  }
  return await openDataFileAt(await findDataFile(filename, name), file, options);
}

function openDataFileAt(
  path: string,
  file: StorageFile,
  options: OpenImageOptions,
): Promise<StorageFile> {
  return openStorageFile(path, {
    readOnly: file.readOnly,
    cache: options.cache ?? 'writeback',
    aio: options.aio ?? 'auto',
    forceShare: options.forceShare ?? false,
    locking: options.locking ?? 'auto',
  });
}

/**
 * The format of a file by its bytes; what is nothing else is raw.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for a format that is not read here, and so is no raw disk either
 */
async function probeImageFormat(file: StorageFile): Promise<ImageFormat> {
  const format = await probeFormat(file);
  if (format === 'raw' || format === 'qcow2') return format;
  const { filename } = file;
  throw new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `Could not open '${filename}': Image is in ${format} format, which is not supported; -f raw (format 'raw') copies it as it is`,
    { filename },
  );
}

function checkFormat(format: string | undefined): void {
  if (format === undefined || (formats as readonly string[]).includes(format)) return;
  const message = isForeignFormat(format)
    ? `The ${format} format is not supported`
    : `Unknown driver '${printable(format)}'`;
  throw new CowherdError('ERR_COWHERD_UNKNOWN_FORMAT', message);
}
