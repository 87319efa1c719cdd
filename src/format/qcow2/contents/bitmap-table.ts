/** Tables of persistent bitmaps (specification, "Bitmap table"): an entry for each cluster of bits. */

const two32 = 0x100000000;
/** An entry: offset, reserved bits, and the flag for a run of ones without a cluster. */
const offsetHigh = 0x00ffffff;
const offsetLow = 0xfffffe00;
const reservedLow = 0x1fe;
const allOnes = 1;

/** Bytes of an entry. */
export const bitmapEntrySize = 8;

/** Whether every entry of a table is one. */
export function isBitmapTable(table: DataView, clusterSize: number): boolean {
  for (let at = 0; at < table.byteLength; at += bitmapEntrySize) {
    const high = table.getUint32(at);
    const low = table.getUint32(at + 4);
    if (high > offsetHigh || (low & reservedLow) !== 0) return false;
    const hostOffset = bitmapClusterOffset(table, at / bitmapEntrySize);
    if (hostOffset === 0) continue;
    if ((low & allOnes) !== 0 || hostOffset % clusterSize !== 0) return false;
  }
  return true;
}

/** Host offset in bytes of the cluster that holds an entry's bits; 0 if all of them are the same. */
export function bitmapClusterOffset(table: DataView, index: number): number {
  const at = index * bitmapEntrySize;
  const high = table.getUint32(at) & offsetHigh;
  return high * two32 + ((table.getUint32(at + 4) & offsetLow) >>> 0);
}

/** Whether all bits of an entry without a cluster are ones. */
export function isAllOnes(table: DataView, index: number): boolean {
  return (table.getUint32(index * bitmapEntrySize + 4) & allOnes) !== 0;
}
