/** Reserving and zeroing space piece by piece, so that it can be cancelled. */
import type { AllocateMode, StorageFile } from './storage.js';

/** Bytes reserved at a time: soon done, yet no more pieces than the host would make of them. */
const pieceBytes: Readonly<Record<AllocateMode, number>> = {
  falloc: 16 * 1024 * 1024 * 1024,
  full: 64 * 1024 * 1024,
};

/** Bytes zeroed at a time. */
const zeroBytes = 64 * 1024 * 1024;

/**
 * Reserves a range of a file, which grows if need be. Where the host knows no reserving, what lies
 * beyond the file's end is written.
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

/**
 * Makes a range read as zeroes.
 *
 * @throws the signal's reason if it says so
 */
export async function writeZeroes(
  file: StorageFile,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < length; done += zeroBytes) {
    signal?.throwIfAborted();
    await file.writeZeroes(offset + done, Math.min(zeroBytes, length - done), true);
  }
}
