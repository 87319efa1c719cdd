/** Creating image files. */
import { realpath, stat, unlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import { hostPath } from '../byte-names.js';
import { CowherdError } from '../errors.js';
import { createQcow2, refuseTooLarge } from '../format/qcow2/change/create.js';
import { createRaw } from '../format/raw/create.js';
import { createStorageFile } from '../storage/open-file.js';
import type { StorageCreateOptions, StorageFile } from '../storage/storage.js';
import type { CreateImageOptions, CreateOptions, ImageFormat } from './api.js';
import { createImageRules, decideCreateOptions } from './create-options.js';
import { openImage } from './open.js';
import { checkOptions } from './option-check.js';
import { type PathLike, pathOf } from './path.js';
import { dataFilePath, resolveReference } from './reference.js';
import { diskSize, sizeInBytes } from './size.js';

/**
 * Makes an image file; a file that exists is overwritten.
 *
 * @throws CowherdError naming the file or option that is wrong, or ERR_COWHERD_ABORTED; a file begun
 *   is then removed again
 */
export async function createImage(name: PathLike, options: CreateImageOptions): Promise<void> {
  const path = pathOf(name);
  checkOptions(options, createImageRules, path, ['format']);
  const size = await decideSize(path, options);
  const opening = fileOptions(options);
  await refuseSharedFile(path, options);
  const file = await createStorageFile(path, opening);
  try {
    await formatFile(file, { ...options, size });
    await file.close();
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
 * Makes an empty storage file into an image.
 *
 * @param options their size is decided, in bytes
 */
export async function formatFile(
  file: StorageFile,
  options: CreateOptions &
    Pick<CreateImageOptions, 'signal' | 'onWarning' | 'durable'> & {
      readonly format: ImageFormat;
      readonly size: number;
    },
): Promise<void> {
  const { size, preallocation, signal } = options;
  if (options.format === 'raw') {
    await createRaw(file, size, preallocation ?? 'off', signal);
    return;
  }
  const decided = decideCreateOptions(options, size);
  let dataFile: StorageFile | undefined;
  if (options.dataFile !== undefined) {
    dataFile = await createStorageFile(
      dataFilePath(file.filename, options.dataFile),
      fileOptions(options),
    );
  }
  try {
    await createQcow2(file, dataFile, decided, signal);
    await dataFile?.close();
  } catch (error) {
    await dataFile?.close().catch(() => undefined);
    if (dataFile !== undefined) await removeFile(dataFile.filename);
    throw error;
  }
}

/** Removes an image file that was just made, and its data file, as far as they are there. */
export async function removeImage(path: string, options: CreateOptions = {}): Promise<void> {
  await removeFile(path);
  if (options.dataFile !== undefined) await removeFile(dataFilePath(path, options.dataFile));
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
  if (options.format === 'raw') return;
  const { dataFile, backingFile } = options;
  const others: [label: string, file: string][] = [];
  if (dataFile !== undefined) others.push(['data file', dataFilePath(path, dataFile)]);
  // A name that is no path may be any name where it is not looked at.
  if (backingFile?.includes(':') === false) {
    others.push(['backing file', resolveReference(path, backingFile)]);
  }
  for (const [label, file] of others) {
    if (resolve(path) === resolve(file) || (await isSameFile(path, file))) {
      throw new CowherdError(
        'ERR_COWHERD_INVALID_ARGUMENT',
        `'${path}': The ${label} cannot be the image file itself`,
        { filename: path },
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
async function decideSize(path: string, options: CreateImageOptions): Promise<number> {
  checkCombination(path, options);
  let backingSize: number | undefined;
  if (options.backingFile !== undefined && options.backingUnchecked !== true) {
    const backing = await openImage(resolveReference(path, options.backingFile), {
      format: options.backingFormat,
      readOnly: true,
      // Nothing of it is read but how long it is, which a guest that has it open does not change.
      forceShare: true,
    });
    backingSize = backing.size;
    await backing.close();
  }
  const size = options.size === undefined ? backingSize : diskSize(options.size);
  if (size === undefined) {
    throw new CowherdError(
      'ERR_COWHERD_INVALID_ARGUMENT',
      `'${path}': Image creation needs a size parameter`,
      { filename: path },
    );
  }
  // Refuses a bad combination before the file is touched.
  if (options.format === 'qcow2') refuseTooLarge(decideCreateOptions(options, size));
  return size;
}

function checkCombination(path: string, options: CreateImageOptions): void {
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', `'${path}': ${message}`, {
      filename: path,
    });
  };
  if ((options.format as string) !== 'qcow2' && (options.format as string) !== 'raw') {
    throw new CowherdError(
      'ERR_COWHERD_UNKNOWN_FORMAT',
      `Unknown file format '${options.format as string}'`,
    );
  }
  if (options.format === 'raw') {
    if (options.backingFile !== undefined)
      refuse("Backing file not supported for file format 'raw'");
    if (options.preallocation === 'metadata') refuse('Unsupported preallocation mode: metadata');
  }
  if (options.backingFile !== undefined && options.backingFormat === undefined) {
    refuse('Backing file specified without backing format');
  }
  if (options.backingFile === '') refuse('The backing file name is empty');
}
