/** Words of 32 bits of tables as they lie in memory, for loops over whole tables. */

const hostIsLittleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

function swapped(word: number): number {
  return ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

/** The word in memory whose bytes are those of a number in big-endian order, and the reverse. */
export const bigEndian: (word: number) => number = hostIsLittleEndian
  ? swapped
  : (word) => word >>> 0;

/** The bytes of a table as words in memory order. */
export function wordsOf(table: DataView): Uint32Array {
  return new Uint32Array(table.buffer, table.byteOffset, table.byteLength / 4);
}
