/** Making a file or device into a new raw image. */
import { problemWith } from '../../errors.js';
import { preallocate } from '../../storage/preallocate.js';
import type { StorageFile } from '../../storage/storage.js';

const sectorSize = 512;
const blockSize = 4096;

/**
 * Gives an empty file its size in bytes, a multiple of 512. A device keeps what it holds, but for its
 * first sector: no image that it held is found there any more.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for what a device cannot do, or the signal's reason
 */
export async function createRaw(
  file: StorageFile,
  size: number,
  preallocation: 'off' | 'metadata' | 'falloc' | 'full',
  signal?: AbortSignal,
): Promise<void> {
  const reserves = preallocation === 'falloc' || preallocation === 'full';
  if (file.limits.blockDevice) {
    await refuseUnfit(file, size, reserves ? preallocation : undefined);
    await writeFirst(file, Math.min(size, sectorSize));
  } else if (reserves) {
    // What is reserved makes the file longer; where the host knows no reserving it is written.
    await preallocate(file, 0, size, preallocation, signal);
  } else {
    await file.truncate(size);
    // As QEMU does it: what alignment direct I/O needs is found out by reading data.
    await writeFirst(file, size < blockSize ? Math.min(size, sectorSize) : blockSize);
  }
}

async function refuseUnfit(
  file: StorageFile,
  size: number,
  mode: string | undefined,
): Promise<void> {
  let reason: string | undefined;
  if (mode !== undefined) reason = `Unsupported preallocation mode '${mode}'`;
  else if (size > (await file.size())) reason = 'Cannot grow device files';
  if (reason === undefined) return;
  const { filename } = file;
  throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, reason);
}

async function writeFirst(file: StorageFile, length: number): Promise<void> {
  if (length > 0) await file.write(new Uint8Array(length), 0);
}
