/**
 * Writes that do not begin and end with sectors, of disks whose sectors are enciphered as wholes: the rest of a sector
 * is read and written too, while nobody else writes.
 */
import { cipherSectorBytes } from '../../native/sector-cipher.js';

/** Reads and writes whole sectors. */
interface SectorAccess {
  read(buffer: Uint8Array, offset: number): Promise<void>;
  write(buffer: Uint8Array, offset: number): Promise<void>;
}

/** Writes bytes with what is around them in their sectors; nobody else may write meanwhile. */
export async function writeWithin(
  access: SectorAccess,
  bytes: Uint8Array,
  offset: number,
): Promise<void> {
  const skipped = offset % cipherSectorBytes;
  const whole = new Uint8Array(wholeSectors(skipped + bytes.length));
  const last = whole.length - cipherSectorBytes;
  const start = offset - skipped;
  // Between the first and the last sector everything is written anyway.
  await access.read(whole.subarray(0, cipherSectorBytes), start);
  if (last > 0) await access.read(whole.subarray(last), start + last);
  whole.set(bytes, skipped);
  await access.write(whole, start);
}

/** The whole sectors of a range, and what is before and after them, each perhaps empty. */
export function partsOf(
  offset: number,
  length: number,
): { readonly offset: number; readonly length: number; readonly isWhole: boolean }[] {
  const end = offset + length;
  const first = Math.min(end, wholeSectors(offset));
  const last = Math.max(first, end - (end % cipherSectorBytes));
  return [
    { offset, length: first - offset, isWhole: false },
    { offset: first, length: last - first, isWhole: true },
    { offset: last, length: end - last, isWhole: false },
  ].filter((part) => part.length > 0);
}

function wholeSectors(bytes: number): number {
  return Math.ceil(bytes / cipherSectorBytes) * cipherSectorBytes;
}
