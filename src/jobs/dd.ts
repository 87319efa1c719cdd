/** Copying a part of a disk, counted in blocks, into a new image. */
import { CowherdError } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import type { CreateOptions, OpenImageOptions } from '../image/api/options.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import type { ImageFormat } from '../image/api/reports.js';
import { createTarget, decryptionOf, removeImage } from '../image/graph/create.js';
import { openImage } from '../image/graph/open.js';
import { defaultFormatName } from '../image/names/formats.js';
import { createOptions } from '../image/options/create-options.js';
import {
  type OptionRules,
  abortSignal,
  callback,
  checkOptions,
  options as optionsBy,
  text,
  wholeNumber,
} from '../image/options/option-check.js';
import { openImageRules } from '../image/options/open-options.js';
import { alignedBuffer } from '../native/aligned-buffer.js';
import { piecesAtOnce } from './pieces-at-once.js';

/** Bytes copied at a time. */
const pieceBytes = 1024 * 1024;
/** Bytes of a block, if nothing else is said. */
const usualBlockSize = 512;

/** Which part of a disk is copied, and what it becomes. */
export interface DdOptions extends LongOperationOptions {
  /** Bytes of a block; default 512. */
  readonly blockSize?: number | undefined;
  /** Blocks of the disk, from its begin on, that are looked at; default all. */
  readonly count?: number | undefined;
  /** How many of these are left out at the begin; default none. */
  readonly skip?: number | undefined;
  /** Format of the new image; default `raw`. */
  readonly to?: ImageFormat | undefined;
  /** The new image's options. */
  readonly createOptions?: CreateOptions | undefined;
  /** How the source is opened; it is only read. */
  readonly image?: OpenImageOptions | undefined;
}

const rules: OptionRules<DdOptions> = {
  blockSize: wholeNumber(1),
  count: wholeNumber(0),
  skip: wholeNumber(0),
  to: text,
  createOptions,
  image: optionsBy(openImageRules),
  signal: abortSignal,
  onProgress: callback,
};

/** What was copied. */
export interface DdResult {
  /** Bytes. */
  readonly copied: number;
  /** Whether what is left out is more than there is. */
  readonly isBeyond: boolean;
}

/**
 * Copies a part of a disk into a new image, as qemu-img dd does: every byte of it is written, zeroes too.
 *
 * @throws CowherdError naming the file and what is wrong, or ERR_COWHERD_ABORTED; an image begun is then
 *   removed again
 */
export async function dd(
  source: PathLike,
  target: PathLike,
  options: DdOptions = {},
): Promise<DdResult> {
  const from = pathOf(source);
  checkOptions(options, rules, from);
  await using image = await openImage(from, { ...options.image, readOnly: true });
  return await ddImage(image, target, options);
}

/** The same of an image that is open. */
export async function ddImage(
  image: Image,
  target: PathLike,
  options: Omit<DdOptions, 'image'>,
): Promise<DdResult> {
  const { blockSize = usualBlockSize, count = Infinity, skip = 0 } = options;
  const { to = defaultFormatName, signal } = options;
  const end = Math.min(image.size, count * blockSize);
  const start = skip * blockSize;
  const length = Math.max(0, end - start);
  const path = pathOf(target);
  if (path === image.filename) {
    const message = `'${path}' cannot be copied into itself`;
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: path });
  }
  const creation = { ...options.createOptions, format: to, size: length, signal };
  const made = await createTarget(path, creation, { isFilled: true });
  try {
    await using copy = await openImage(path, {
      format: to,
      inOrder: true,
      encrypt: decryptionOf(options.createOptions),
    });
    await copyPart(image, copy, start, length, options);
  } catch (error) {
    await removeImage(made);
    if (signal?.aborted !== true) throw error;
    const message = `Copying into '${path}' was cancelled`;
    throw new CowherdError('ERR_COWHERD_ABORTED', message, { filename: path, cause: error });
  }
  return { copied: length, isBeyond: start > end };
}

/** A piece that is being read. */
interface Piece {
  readonly memory: Uint8Array;
  readonly bytes: Uint8Array;
  /** Where it goes in the copy. */
  readonly offset: number;
  readonly read: Promise<void>;
}

/** Reads ahead, and writes one piece after the other, so that the copy lies in its order. */
async function copyPart(
  image: Image,
  copy: Image,
  start: number,
  length: number,
  { signal, onProgress }: LongOperationOptions,
): Promise<void> {
  const free = Array.from({ length: piecesAtOnce(pieceBytes, false) }, () =>
    alignedBuffer(pieceBytes),
  );
  const pieces: Piece[] = [];
  let next = 0;
  const readAhead = (): void => {
    while (next < length && free.length > 0) {
      const memory = free.pop()!;
      const bytes = memory.subarray(0, Math.min(pieceBytes, length - next));
      const read = image.read(bytes, start + next);
      // It is waited for below, unless another one fails first.
      read.catch(() => undefined);
      pieces.push({ memory, bytes, offset: next, read });
      next += bytes.length;
    }
  };
  try {
    readAhead();
    for (let piece; (piece = pieces.shift()) !== undefined;) {
      signal?.throwIfAborted();
      const { memory, bytes, offset, read } = piece;
      await read;
      await copy.write(bytes, offset);
      free.push(memory);
      readAhead();
      onProgress?.({ doneBytes: offset + bytes.length, totalBytes: length });
    }
  } finally {
    await Promise.allSettled(pieces.map(({ read }) => read));
  }
}
