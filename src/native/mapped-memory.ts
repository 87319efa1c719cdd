/** Memory that other programs share with this one. */
import { addon, addonProblem } from './addon.js';

function needed(): NonNullable<typeof addon> {
  if (addon === undefined) throw new Error(addonProblem);
  return addon;
}

/**
 * Maps a part of a file for reading and writing. Where its file gets shorter meanwhile, what is touched
 * there is memory of this program alone, and `isMemoryWhole` says so.
 *
 * @param offset bytes, a multiple of the size of a page
 * @returns a negated errno if it cannot be
 */
export function mapMemory(
  descriptor: number,
  offset: number,
  length: number,
): ArrayBuffer | number {
  return needed().mapMemory(descriptor, offset, length);
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
