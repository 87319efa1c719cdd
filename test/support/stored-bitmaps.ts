/** Persistent bitmaps as they stand in the bytes of an image: knows just enough of the format for that. */

/** A bitmap of an image. */
export interface StoredBitmap {
  readonly name: string;
  readonly granularity: number;
  readonly inUse: boolean;
  readonly auto: boolean;
  /** Granules of which the bit is set, ascending; undefined for one that is in use. */
  readonly dirty: readonly number[] | undefined;
}

/** What an image has of bitmaps. */
export interface StoredBitmaps {
  readonly bitmaps: readonly StoredBitmap[];
  /** Where directory, tables and bits lie, in bytes. */
  readonly places: readonly { readonly offset: number; readonly length: number }[];
}

const bitmapsExtension = 0x23852875;

/**
 * The bitmaps that the header names and says can be trusted.
 *
 * @param read gives bytes of the file, zeroes beyond its end
 * @throws Error for what contradicts the specification
 */
export function storedBitmaps(read: (offset: number, length: number) => Buffer): StoredBitmaps {
  const header = read(0, 4096);
  if (header.readUInt32BE(4) !== 3 || (header.readUInt32BE(92) & 1) === 0) {
    return { bitmaps: [], places: [] };
  }
  const clusterSize = 2 ** header.readUInt32BE(20);
  const size = Number(header.readBigUInt64BE(24));
  let at = header.readUInt32BE(100);
  while (header.readUInt32BE(at) !== bitmapsExtension) {
    if (header.readUInt32BE(at) === 0) throw new Error('trusted bitmaps, and no extension');
    at += 8 + Math.ceil(header.readUInt32BE(at + 4) / 8) * 8;
  }
  const count = header.readUInt32BE(at + 8);
  const offset = Number(header.readBigUInt64BE(at + 24));
  const length = Number(header.readBigUInt64BE(at + 16));
  const directory = read(offset, length);
  const places = [{ offset, length }];
  const bitmaps: StoredBitmap[] = [];
  for (let entry = 0; entry < directory.length;) {
    const tableOffset = Number(directory.readBigUInt64BE(entry));
    const entries = directory.readUInt32BE(entry + 8);
    const flags = directory.readUInt32BE(entry + 12);
    const granularity = 2 ** directory.readUInt8(entry + 17);
    const nameLength = directory.readUInt16BE(entry + 18);
    const inUse = (flags & 1) !== 0;
    const granules = Math.ceil(size / granularity);
    if (!inUse && entries !== Math.ceil(granules / 8 / clusterSize)) {
      throw new Error(`a table of ${entries} entries for ${granules} granules`);
    }
    const table = read(tableOffset, entries * 8);
    places.push({ offset: tableOffset, length: entries * 8 });
    for (let index = 0; index < entries; index++) {
      const bits = Number(table.readBigUInt64BE(index * 8));
      if (bits > 1) places.push({ offset: bits, length: clusterSize });
    }
    bitmaps.push({
      name: directory.toString('utf8', entry + 24, entry + 24 + nameLength),
      granularity,
      inUse,
      auto: (flags & 2) !== 0,
      dirty: inUse ? undefined : setBits(table, granules, clusterSize, read),
    });
    entry += Math.ceil((24 + nameLength) / 8) * 8;
  }
  if (bitmaps.length !== count) throw new Error(`${bitmaps.length} bitmaps instead of ${count}`);
  return { bitmaps, places };
}

function setBits(
  table: Buffer,
  granules: number,
  clusterSize: number,
  read: (offset: number, length: number) => Buffer,
): number[] {
  const dirty: number[] = [];
  for (let index = 0; index * 8 < table.length; index++) {
    const entry = table.readBigUInt64BE(index * 8);
    if (entry === 0n) continue;
    const bits = entry === 1n ? Buffer.alloc(clusterSize, 0xff) : read(Number(entry), clusterSize);
    for (const [byte, value] of bits.entries()) {
      for (let bit = 0; value >> bit !== 0; bit++) {
        const granule = (index * clusterSize + byte) * 8 + bit;
        if (((value >> bit) & 1) === 0) continue;
        if (granule >= granules && entry !== 1n) throw new Error(`bit ${granule} is set`);
        dirty.push(granule);
      }
    }
  }
  return dirty;
}

/** The bitmaps of an image in memory. */
export function bitmapsOf(bytes: Uint8Array): StoredBitmaps {
  return storedBitmaps((offset, length) => {
    const whole = Buffer.alloc(length);
    whole.set(bytes.subarray(offset, offset + length));
    return whole;
  });
}
