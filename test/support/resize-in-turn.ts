/** Other sizes for a disk, with space reserved in each of the ways where it grows. */
import type { Image } from '../../src/image/api/image.js';

const modes = ['off', 'metadata', 'falloc', 'full'] as const;

/** Gives a disk another size; which way space is reserved goes by the size, so that it is the same when done again. */
export async function resizeInTurn(image: Image, bytes: number): Promise<void> {
  const preallocation = bytes > image.size ? modes[(bytes / 512) % modes.length] : 'off';
  await image.resize(bytes, { shrink: true, preallocation });
}
