/** Creating image files. */
import { realpath, stat, unlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import { hostPath } from '../../byte-names.js';
import { CowherdError, problemWith } from '../../errors.js';
import type {
  DecryptOptions,
  FormatDriver,
  ImageCreation,
  MeasuredContent,
  Measurement,
} from '../../format/driver.js';
import {
  type CreateOption,
  type FormatCreation,
  fileOptions as optionsOfFile,
} from '../../format/create-options.js';
import { creatableFormats, formatNamed } from '../../format/registry.js';
import { diskSize, sizeInBytes } from '../../size.js';
import { createStorageFile } from '../../storage/registry.js';
import type { StorageCreateOptions, StorageFile } from '../../storage/storage.js';
import { type Send, SinkFile } from '../../storage/stream/sink-file.js';
import type { Image } from '../api/image.js';
import type { CreateImageOptions, CreateOptions } from '../api/options.js';
import { createImageRules } from '../options/create-options.js';
import { formatByDriver, loadDriver } from '../names/formats.js';
import { openImage, openImageOn } from './open.js';
import { checkOptions } from '../options/option-check.js';
import { type PathLike, pathOf } from '../api/path.js';
import { dataFilePath, resolveReference } from '../names/reference.js';

export type { MeasuredContent, Measurement } from '../../format/driver.js';

/**
 * Makes an image file; a file that exists is overwritten.
 *
 * @throws CowherdError naming the file or option that is wrong, or ERR_COWHERD_ABORTED; a file begun
 *   is then removed again
 */
export async function createImage(name: PathLike, options: CreateImageOptions): Promise<void> {
  await createTarget(name, options);
}

/**
 * Bytes that a disk may come to whose size is not known when its image is made.
 *
 * @returns undefined where that cannot be in this format, or with these options
 */
export async function openEndedBytes(
  format: string,
  options: CreateOptions,
): Promise<number | undefined> {
  return (await creationOf(format)).openEndedBytes?.(options);
}

/** Whether images of a format are written from their begin to their end, if the disk is. */
export async function isSequential(format: string, options: CreateOptions): Promise<boolean> {
  return (await creationOf(format)).isSequential?.(options) ?? false;
}

/**
 * How large an image would be.
 *
 * @param size of its disk in bytes
 * @param content left out for an empty one
 * @throws ERR_COWHERD_UNSUPPORTED for a format that does not tell, ERR_COWHERD_INVALID_ARGUMENT naming the
 *   option that is wrong
 */
export async function measureNew(
  { format, ...options }: CreateOptions & { readonly format: string },
  size: number,
  content?: MeasuredContent,
): Promise<Measurement> {
  const creation = await creationOf(format);
  if (creation.measure !== undefined) return await creation.measure(options, size, content);
  const message = `Block driver '${format}' does not support size measurement`;
  throw new CowherdError('ERR_COWHERD_UNSUPPORTED', message);
}

/**
 * Makes an image that goes to where bytes are taken in order only.
 *
 * @param name what failures call it
 * @param options of a format for which `isSequential` holds; their size is decided, in bytes
 * @returns the image, open, to be filled in the order of its disk; complete when it is closed
 */
export async function createSequential(
  name: string,
  send: Send,
  options: CreateImageOptions & { readonly size: number },
): Promise<Image> {
  const { format, size } = options;
  (await creationOf(format)).check(options, size);
  const file = new SinkFile(name, send);
  await formatFile(file, options, { isFilled: true });
  const image = await openImageOn(file, { format, inOrder: true });
  file.flow();
  return image;
}

/** What is done with a new image by whoever has it made. */
export interface NewImageUse {
  /** Whether the size is only what it may come to. */
  readonly isOpenEnded?: boolean;
  /** Whether it is filled before anybody else comes to it. */
  readonly isFilled?: boolean;
}

/** By what a new image is then opened. */
export function decryptionOf({ encrypt }: CreateOptions = {}): DecryptOptions | undefined {
  if (encrypt === undefined) return undefined;
  const { keySecret, secret } = encrypt;
  return { keySecret, secret };
}

/** The other files that are made with an image. @param options their size is decided, in bytes */
export async function filesMadeWith(
  path: string,
  options: CreateImageOptions & { readonly size: number },
): Promise<readonly string[]> {
  const { dataFile, format, size } = options;
  const creation = await creationOf(format);
  const data = dataFile === undefined ? [] : [dataFilePath(path, dataFile)];
  return [...data, ...(creation.otherFiles?.(path, options, size) ?? [])];
}

/**
 * As `createImage`.
 *
 * @param use what is done with it next
 * @returns the files that were made
 */
export async function createTarget(
  name: PathLike,
  options: CreateImageOptions,
  use?: NewImageUse,
): Promise<readonly string[]> {
  const path = pathOf(name);
  checkOptions(options, createImageRules(), path, ['format']);
  const creation = await creationOf(options.format);
  const size = await decideSize(path, options, creation);
  const opening = fileOptions(options);
  await refuseSharedFile(path, options);
  const file = await createStorageFile(path, opening);
  try {
    await formatFile(file, { ...options, size }, use);
    await file.close();
    return [path, ...(await filesMadeWith(path, { ...options, size }))];
  } catch (error) {
    await file.close().catch(() => undefined);
    await removeFile(path);
    if (options.signal?.aborted !== true) throw error;
    throw new CowherdError('ERR_COWHERD_ABORTED', `Creation of '${path}' was cancelled`, {
      filename: path,
      cause: error,
    });
  }
}

/** What of the options the file system is asked for. */
function fileOptions({
  nocow,
  extentSizeHint,
  onWarning,
  durable = true,
}: CreateOptions & Pick<CreateImageOptions, 'onWarning' | 'durable'>): StorageCreateOptions {
  const hint =
    extentSizeHint === undefined ? undefined : sizeInBytes(extentSizeHint, 'extent size hint');
  if (hint !== undefined && hint > 0xffffffff) {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', 'Extent size hint is too large');
  }
  return { nocow, extentSizeHint: hint, onWarning, cache: durable ? 'writeback' : 'unsafe' };
}

/**
 * How images of a format are made.
 *
 * @throws ERR_COWHERD_UNKNOWN_FORMAT, ERR_COWHERD_UNSUPPORTED
 */
async function creationOf(format: string): Promise<ImageCreation> {
  if (formatNamed(format) === undefined) {
    throw new CowherdError('ERR_COWHERD_UNKNOWN_FORMAT', `Unknown file format '${format}'`);
  }
  const { creation }: FormatDriver = await loadDriver(format);
  if (creation !== undefined) return creation;
  throw new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `Format driver '${format}' does not support image creation`,
  );
}

/**
 * Makes an empty storage file into an image.
 *
 * @param options their size is decided, in bytes
 */
export async function formatFile(
  file: StorageFile,
  options: CreateImageOptions & { readonly size: number },
  { isOpenEnded = false, isFilled = false }: NewImageUse = {},
): Promise<void> {
  const { size, signal } = options;
  const creation = await creationOf(options.format);
  const children: StorageFile[] = [];
  const createChild = async (name: string): Promise<StorageFile> => {
    const child = await createStorageFile(dataFilePath(file.filename, name), fileOptions(options));
    children.push(child);
    return child;
  };
  try {
    await creation.create({ file, size, isOpenEnded, isFilled, options, signal, createChild });
    for (const child of children) await child.close();
  } catch (error) {
    for (const child of children) {
      await child.close().catch(() => undefined);
      await removeFile(child.filename);
    }
    throw error;
  }
}

/** Removes the files of an image that was just made, as far as they are there. */
export async function removeImage(files: readonly string[]): Promise<void> {
  for (const file of files) await removeFile(file);
}

/** Devices are not ours to remove, and failing to clean up is not what has to be told. */
async function removeFile(path: string): Promise<void> {
  const facts = await stat(hostPath(path)).catch(() => undefined);
  if (facts?.isFile() !== true) return;
  // What a link leads to was made, not the link.
  const place = await realpath(hostPath(path), 'buffer').catch(() => hostPath(path));
  await unlink(place).catch(() => undefined);
}

/** Refuses a data file or backing file that is the image file, before anything is overwritten. */
async function refuseSharedFile(path: string, options: CreateImageOptions): Promise<void> {
  const { dataFile, backingFile } = options;
  const others: [label: string, file: string][] = [];
  if (dataFile !== undefined) others.push(['data file', dataFilePath(path, dataFile)]);
  // A name that is no path may be any name where it is not looked at.
  if (backingFile?.includes(':') === false) {
    others.push(['backing file', resolveReference(path, backingFile)]);
  }
  for (const [label, file] of others) {
    if (resolve(path) === resolve(file) || (await isSameFile(path, file))) {
      throw problemWith(
        'ERR_COWHERD_INVALID_ARGUMENT',
        path,
        `The ${label} cannot be the image file itself`,
      );
    }
  }
}

async function isSameFile(first: string, second: string): Promise<boolean> {
  const [one, other] = await Promise.all(
    [first, second].map((path) => stat(hostPath(path)).catch(() => undefined)),
  );
  return one !== undefined && one.dev === other?.dev && one.ino === other.ino;
}

/** The size of the new disk in bytes: what the caller says, or that of the backing file. */
async function decideSize(
  path: string,
  options: CreateImageOptions,
  creation: ImageCreation,
): Promise<number> {
  checkCombination(path, options);
  let backingSize: number | undefined;
  if (options.backingFile !== undefined && options.backingUnchecked !== true) {
    const backing = await openImage(resolveReference(path, options.backingFile), {
      format: formatByDriver(options.backingFormat),
      readOnly: true,
      forInfo: true,
      // Nothing of it is read but how long it is, which a guest that has it open does not change.
      forceShare: true,
    });
    backingSize = backing.size;
    await backing.close();
  }
  const size = options.size === undefined ? backingSize : diskSize(options.size);
  if (size === undefined) {
    throw problemWith(
      'ERR_COWHERD_INVALID_ARGUMENT',
      path,
      'Image creation needs a size parameter',
    );
  }
  // Refuses a bad combination before the file is touched.
  creation.check(options, size);
  return size;
}

function checkCombination(path: string, options: CreateImageOptions): void {
  const refuse = (message: string): never => {
    throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', path, message);
  };
  const { format, backingFile } = options;
  const known = [...(formatNamed(format)?.creation?.options ?? []), ...optionsOfFile];
  const has = (key: string): boolean => known.some((option) => isOf(option, key));
  if (backingFile !== undefined && !has('backingFile')) {
    refuse(`Backing file not supported for file format '${format}'`);
  }
  for (const [key, value] of Object.entries(options)) {
    if (value !== undefined && isFormatOption(key) && !has(key)) {
      refuse(`the ${format} format has no option '${key}'`);
    }
  }
  if (options.backingFile !== undefined && options.backingFormat === undefined) {
    refuse('Backing file specified without backing format');
  }
  if (options.backingFile === '') refuse('The backing file name is empty');
}

/** Whether an option is, or is one of, those that programs give by that name. */
function isOf({ key }: CreateOption, name: string): boolean {
  return key === name || key.startsWith(`${name}.`);
}

/** Whether an option is of some format, rather than of making images as such. */
function isFormatOption(key: string): boolean {
  const has = ({ creation }: { creation: FormatCreation }): boolean =>
    creation.options.some((option) => isOf(option, key));
  return key !== 'size' && creatableFormats().some(has);
}
