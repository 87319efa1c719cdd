/** Memory that O_DIRECT takes as it is; any other is copied through an aligned buffer of the addon's. */
import { addon } from './addon.js';

/** Alignment in bytes that every device and file system takes: that of a page. */
const alignment = 4096;

/**
 * A zeroed buffer whose memory begins at a page (open(2), "O_DIRECT"). Without the addon, which knows
 * addresses and does direct transfers, it begins anywhere.
 */
export function alignedBuffer(bytes: number): Uint8Array {
  if (addon === undefined) return new Uint8Array(bytes);
  const memory = new Uint8Array(bytes + alignment - 1);
  const beyond = addon.addressOf(memory) % alignment;
  const skip = beyond === 0 ? 0 : alignment - beyond;
  return memory.subarray(skip, skip + bytes);
}
