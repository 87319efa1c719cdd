/** An image's guest content as a stream of pieces in order, read ahead with several requests. */
import { CowherdError } from '../errors.js';
import type { Image, LongOperationOptions } from '../image/api.js';
import { alignedBuffer } from '../native/aligned-buffer.js';

/** How content is read. */
export interface ContentOptions extends LongOperationOptions {
  /** Requests in flight; default 4. */
  readonly parallel?: number | undefined;
}

const pieceBytes = 1024 * 1024;

/**
 * The content from the first byte to the last. A piece is the caller's until the next one is asked
 * for, and is written over after that.
 *
 * @throws CowherdError if a read fails, or ERR_COWHERD_ABORTED
 */
export async function* readContent(
  image: Image,
  options: ContentOptions = {},
): AsyncGenerator<Uint8Array> {
  const { parallel = 4, signal, onProgress } = options;
  const total = image.size;
  const buffers = Array.from({ length: Math.max(1, parallel) }, () => alignedBuffer(pieceBytes));
  const reads: { readonly piece: Uint8Array; readonly done: Promise<void> }[] = [];
  let next = 0;
  const readAhead = (buffer: Uint8Array): void => {
    if (next >= total) return;
    const piece = buffer.subarray(0, Math.min(pieceBytes, total - next));
    const done = image.read(piece, next);
    // A failure is met when its turn comes; until then it must not end the program.
    done.catch(() => undefined);
    reads.push({ piece, done });
    next += piece.length;
  };
  buffers.forEach(readAhead);
  try {
    for (let doneBytes = 0, index = 0; reads.length > 0; index++) {
      if (signal?.aborted === true) {
        throw new CowherdError('ERR_COWHERD_ABORTED', 'Reading was aborted');
      }
      const { piece, done } = reads[0];
      await done;
      reads.shift();
      yield piece;
      doneBytes += piece.length;
      onProgress?.({ doneBytes, totalBytes: total });
      readAhead(buffers[index % buffers.length]);
    }
  } finally {
    await Promise.allSettled(reads.map(({ done }) => done));
  }
}
