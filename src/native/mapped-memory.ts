/** Memory that other programs share with this one. */
import { addon, addonProblem } from './addon.js';

function needed(): NonNullable<typeof addon> {
  if (addon === undefined) throw new Error(addonProblem);
  return addon;
}

/** Bytes of a page of memory, which mappings begin at. */
const pageBytes = 4096;

/**
 * Maps a part of a file for reading and writing. Where its file gets shorter meanwhile, what is touched
 * there is memory of this program alone, and `isMemoryWhole` says so.
 *
 * @param offset bytes
 * @returns the part, in a mapping that may begin before it; a negated errno if it cannot be
 */
export function mapMemory(
  descriptor: number,
  offset: number,
  length: number,
): Uint8Array<ArrayBuffer> | number {
  const start = offset % pageBytes;
  const memory = needed().mapMemory(descriptor, offset - start, start + length);
  return typeof memory === 'number' ? memory : new Uint8Array(memory, start, length);
}

/** Memory for sharing, all zeroes. @returns its descriptor, the caller's to close, or a negated errno */
export function createMemory(lengthBytes: number): number {
  return needed().createMemory(lengthBytes);
}

/** How much was taken away of all that the process has mapped, in pages; costs next to nothing. */
export function lostPages(): number {
  return needed().lostPages();
}

/** Whether nothing was found to be taken away of what `mapMemory` gave. */
export function isMemoryWhole(memory: ArrayBuffer): boolean {
  return needed().isMemoryWhole(memory);
}
