/** Reserving space piece by piece, so that it can be cancelled. */
import type { AllocateMode, StorageFile } from './storage.js';

/** Bytes reserved at a time: soon done, yet no more pieces than the host would make of them. */
const pieceBytes: Readonly<Record<AllocateMode, number>> = {
  falloc: 16 * 1024 * 1024 * 1024,
  full: 64 * 1024 * 1024,
};

/**
 * Reserves a range of a file.
 *
 * @throws the signal's reason if it says so
 */
export async function preallocate(
  file: StorageFile,
  offset: number,
  length: number,
  mode: AllocateMode,
  signal: AbortSignal | undefined,
): Promise<void> {
  const piece = pieceBytes[mode];
  for (let done = 0; done < length; done += piece) {
    signal?.throwIfAborted();
    await file.allocate(offset + done, Math.min(piece, length - done), mode);
  }
  signal?.throwIfAborted();
}
