/** CRC-32C (Castagnoli), by which VHDX guards its structures. */

/** The polynomial 0x1edc6f41, its bits reversed. */
const polynomial = 0x82f63b78;

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) {
    remainder = (remainder >>> 1) ^ ((remainder & 1) === 0 ? 0 : polynomial);
  }
  return remainder;
});

/**
 * The checksum of a structure whose checksum lies in it, at `checksumAt`, and counts as zeroes.
 *
 * @param bytes in parts, one after the other; the checksum lies in the first
 */
export function crc32cAround(bytes: readonly Uint8Array[], checksumAt: number): number {
  let crc = 0xffffffff;
  let isFirst = true;
  for (const part of bytes) {
    for (let at = 0; at < part.length; at++) {
      const isChecksum = isFirst && at >= checksumAt && at < checksumAt + 4;
      crc = table[(crc ^ (isChecksum ? 0 : part[at])) & 0xff] ^ (crc >>> 8);
    }
    isFirst = false;
  }
  return ~crc >>> 0;
}
