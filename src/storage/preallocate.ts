/** Reserving and zeroing space piece by piece, so that it can be cancelled. */
import type { AllocateMode, StorageFile } from './storage.js';

type GrowingMode = Exclude<AllocateMode, 'keep'>;

/** Bytes reserved at a time: soon done, yet no more pieces than the host would make of them. */
const pieceBytes: Readonly<Record<GrowingMode, number>> = {
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
  mode: GrowingMode,
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
 * Reserves blocks for a range within a file's length that is about to be written, so that they lie
 * together.
 *
 * @returns whether the host did; nothing is promised, so whatever is wrong is found out by who writes
 */
export async function reserveBlocks(
  file: StorageFile,
  offset: number,
  length: number,
): Promise<boolean> {
  try {
    await file.allocate(offset, length, 'keep');
    return true;
  } catch {
    return false;
  }
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
