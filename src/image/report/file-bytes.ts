/** The bytes of the file that an image lies in, whatever they mean. */
import { openStorageFile } from '../../storage/registry.js';
import type { OpenImageOptions } from '../api/options.js';

const pieceBytes = 1024 * 1024;

/**
 * The bytes of a file from the first to the last. A piece is the caller's until the next one is asked for.
 *
 * @throws CowherdError if it cannot be opened or read; the signal's reason
 */
export async function* readFileBytes(
  name: string,
  { forceShare = false, http }: Pick<OpenImageOptions, 'forceShare' | 'http'>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const file = await openStorageFile(name, {
    readOnly: true,
    sharesWriting: true,
    forceShare,
    http,
  });
  try {
    const size = await file.size();
    const buffer = new Uint8Array(Math.min(size, pieceBytes));
    for (let at = 0; at < size; at += buffer.length) {
      signal?.throwIfAborted();
      const piece = buffer.subarray(0, Math.min(buffer.length, size - at));
      await file.read(piece, at);
      yield piece;
    }
  } finally {
    await file.close();
  }
}
