/** An image's guest content as a stream of pieces in order, read ahead with several requests. */
import { CowherdError } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import { inOrder } from '../image/streams/in-order.js';
import { alignedBuffer } from '../native/aligned-buffer.js';
import { zeroRuns } from '../native/zero-scan.js';
import { blockStatus } from './block-status.js';

/** How content is read. */
export interface ContentOptions extends LongOperationOptions {
  /** Requests in flight; default 4. */
  readonly parallel?: number | undefined;
}

/** How a range of the content is read. */
interface RangeOptions extends ContentOptions {
  /** Guest offset and length in bytes; default all of it. */
  readonly offset?: number | undefined;
  readonly length?: number | undefined;
}

const pieceBytes = 1024 * 1024;
/** Zeroes in bytes, aligned to as much, that are worth a hole: the block of most file systems. */
const holeBytes = 4096;

/**
 * The content from the first byte to the last. A piece is the caller's until the next one is asked
 * for, and is written over after that.
 *
 * @throws CowherdError if a read fails, or ERR_COWHERD_ABORTED
 */
export async function* readContent(
  image: Image,
  options: RangeOptions = {},
): AsyncGenerator<Uint8Array> {
  const { parallel = 4, signal, onProgress, offset = 0, length = image.size - offset } = options;
  const wanted = Math.min(Math.max(1, parallel), Math.ceil(length / pieceBytes));
  const bufferBytes = Math.min(pieceBytes, length);
  const buffers = Array.from({ length: wanted }, () => alignedBuffer(bufferBytes));
  const read = async (at: number): Promise<Uint8Array> => {
    if (signal?.aborted === true) {
      throw new CowherdError('ERR_COWHERD_ABORTED', 'Reading was aborted');
    }
    const buffer = buffers[(at / pieceBytes) % wanted];
    const piece = buffer.subarray(0, Math.min(pieceBytes, length - at));
    await image.read(piece, offset + at);
    return piece;
  };
  const begins = function* (): Generator<number> {
    for (let at = 0; at < length; at += pieceBytes) yield at;
  };
  let doneBytes = 0;
  for await (const piece of inOrder(begins(), wanted, read)) {
    yield piece;
    doneBytes += piece.length;
    onProgress?.({ doneBytes, totalBytes: length });
  }
}

/**
 * The content from the first byte to the last, as bytes or the length of a run of zeroes, which is not read
 * where the image knows of it. Bytes are the caller's as long as a piece of `readContent`.
 *
 * @throws as `readContent` does; BlockStatusError
 */
export async function* readSparseContent(
  image: Image,
  options: ContentOptions = {},
): AsyncGenerator<Uint8Array | number> {
  const { parallel, signal, onProgress } = options;
  let doneBytes = 0;
  let stored = { start: 0, end: 0 };
  const handOut = async function* (end: number): AsyncGenerator<Uint8Array | number> {
    const length = stored.end - stored.start;
    for await (const piece of readContent(image, {
      parallel,
      signal,
      offset: stored.start,
      length,
    })) {
      yield* sparsePieces(piece);
      doneBytes += piece.length;
      onProgress?.({ doneBytes, totalBytes: image.size });
    }
    if (end === stored.end) return;
    yield end - stored.end;
    doneBytes = end;
    onProgress?.({ doneBytes, totalBytes: image.size });
  };
  for await (const { start, length, zero, present } of blockStatus(image, signal)) {
    if (zero || !present) continue;
    // A short gap costs less to read than the end of reading ahead.
    if (start - stored.end > pieceBytes) {
      yield* handOut(start);
      stored = { start, end: start };
    }
    stored.end = start + length;
  }
  yield* handOut(image.size);
}

/** The content of images, one after the other. @param isSparse as `readSparseContent` gives it */
export async function* readParts(
  parts: readonly { readonly image: Image }[],
  isSparse: boolean,
  { signal, onProgress }: ContentOptions,
): AsyncGenerator<Uint8Array | number> {
  const totalBytes = parts.reduce((sum, { image }) => sum + image.size, 0);
  const read = isSparse ? readSparseContent : readContent;
  let before = 0;
  for (const { image } of parts) {
    const base = before;
    yield* read(image, {
      signal,
      onProgress: ({ doneBytes }) => onProgress?.({ doneBytes: base + doneBytes, totalBytes }),
    });
    before += image.size;
  }
}

/** Bytes as the parts that are to be written, and the lengths of the zeroes in between. */
function* sparsePieces(bytes: Uint8Array): Generator<Uint8Array | number> {
  let at = 0;
  let isData = true;
  for (const length of zeroRuns(bytes, holeBytes)) {
    if (length > 0) yield isData ? bytes.subarray(at, at + length) : length;
    at += length;
    isData = !isData;
  }
}
