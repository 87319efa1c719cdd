/** Makes VHDX images by hand, and logs for them, as [MS-VHDX] has them; shares nothing with the reader. */

const mib = 1024 * 1024;
const kib = 1024;

/** Host offsets of the structures, in bytes. */
export const place = { log: mib, metadata: 2 * mib, table: 3 * mib, blocks: 4 * mib } as const;

/** A payload block. */
export interface BuiltBlock {
  readonly index: number;
  readonly state: number;
  /** Of states 6 and 7: all of the block, or of the last one as much as the disk has. */
  readonly data?: Buffer;
  /** Of state 7. */
  readonly isPresent?: (sector: number) => boolean;
}

/** What an image holds. */
export interface BuiltImage {
  /** Bytes, as all sizes. */
  readonly size: number;
  readonly blockSize: number;
  readonly sectorSize: number;
  readonly blocks: readonly BuiltBlock[];
  /** Keys and values of the parent locator. */
  readonly parent?: Readonly<Record<string, string>>;
  /** Of the entries of the log that count. */
  readonly logId?: string;
  /** All of the log, 1 MiB, or the begin of it. */
  readonly log?: Buffer;
}

/** The bytes of a GUID. */
export function guid(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** Bit by bit, so that it has nothing in common with the reader's. */
function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0x82f63b78 * (crc & 1));
  }
  return ~crc >>> 0;
}

/** Writes a structure's checksum into it. */
export function sign(structure: Buffer): Buffer {
  structure.writeUInt32LE(0, 4);
  structure.writeUInt32LE(crc32c(structure), 4);
  return structure;
}

/** Changes a structure of a file, and signs it anew. @param at host offset of it, as `length` is in bytes */
export function changeSigned(
  at: number,
  length: number,
  change: (structure: Buffer) => void,
): (file: Buffer) => void {
  return (file) => {
    const structure = file.subarray(at, at + length);
    change(structure);
    sign(structure);
  };
}

/** A header. */
export function headerOf(sequenceNumber: bigint, logId: string | undefined): Buffer {
  const header = Buffer.alloc(4096);
  header.write('head');
  header.writeBigUInt64LE(sequenceNumber, 8);
  guid('00112233-4455-6677-8899-AABBCCDDEEFF').copy(header, 16);
  guid('83ED0EC3-24C8-49A6-A959-5E4BF1288BFB').copy(header, 32);
  if (logId !== undefined) guid(logId).copy(header, 48);
  header.writeUInt16LE(1, 66);
  header.writeUInt32LE(mib, 68);
  header.writeBigUInt64LE(BigInt(place.log), 72);
  return sign(header);
}

function regionTable(): Buffer {
  const table = Buffer.alloc(64 * kib);
  table.write('regi');
  table.writeUInt32LE(2, 8);
  for (const [index, [id, at]] of [
    ['2DC27766-F623-4200-9D64-115E9BFD4A08', place.table] as const,
    ['8B7CA206-4790-4B9A-B8FE-575F050F886E', place.metadata] as const,
  ].entries()) {
    guid(id).copy(table, 16 + index * 32);
    table.writeBigUInt64LE(BigInt(at), 32 + index * 32);
    table.writeUInt32LE(mib, 40 + index * 32);
    table.writeUInt32LE(1, 44 + index * 32);
  }
  return sign(table);
}

function parentLocator(pairs: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(pairs);
  const front = Buffer.alloc(20 + entries.length * 12);
  guid('B04AEFB7-D19E-4A81-B789-25B8E9445913').copy(front);
  front.writeUInt16LE(entries.length, 18);
  const texts: Buffer[] = [];
  let end = front.length;
  const add = (text: string): [at: number, length: number] => {
    const bytes = Buffer.from(text, 'utf16le');
    texts.push(bytes);
    end += bytes.length;
    return [end - bytes.length, bytes.length];
  };
  for (const [index, [key, value]] of entries.entries()) {
    const [keyAt, keyLength] = add(key);
    const [valueAt, valueLength] = add(value);
    const at = 20 + index * 12;
    front.writeUInt32LE(keyAt, at);
    front.writeUInt32LE(valueAt, at + 4);
    front.writeUInt16LE(keyLength, at + 8);
    front.writeUInt16LE(valueLength, at + 10);
  }
  return Buffer.concat([front, ...texts]);
}

/** The metadata region, as much of it as there is. */
export function metadataOf(image: BuiltImage): Buffer {
  const { size, blockSize, sectorSize, parent } = image;
  const parameters = Buffer.alloc(8);
  parameters.writeUInt32LE(blockSize);
  parameters.writeUInt32LE(parent === undefined ? 0 : 2, 4);
  const diskSize = Buffer.alloc(8);
  diskSize.writeBigUInt64LE(BigInt(size));
  const sector = Buffer.alloc(4);
  sector.writeUInt32LE(sectorSize);
  const items: [id: string, flags: number, data: Buffer][] = [
    ['CAA16737-FA36-4D43-B3B6-33F0AA44E76B', 4, parameters],
    ['2FA54224-CD1B-4876-B211-5DBED83BF4B8', 6, diskSize],
    ['BECA12AB-B2E6-4523-93EF-C309E000C746', 6, Buffer.alloc(16, 7)],
    ['8141BF1D-A96F-4709-BA47-F233A8FAAB5F', 6, sector],
    ['CDA348C7-445D-4471-9CC9-E9885251C556', 6, sector],
  ];
  if (parent !== undefined) {
    items.push(['A8D35F2D-B30B-454D-ABF7-D3D84834AB0C', 4, parentLocator(parent)]);
  }
  const table = Buffer.alloc(64 * kib);
  table.write('metadata');
  table.writeUInt16LE(items.length, 10);
  let end = table.length;
  for (const [index, [id, flags, data]] of items.entries()) {
    const at = 32 + index * 32;
    guid(id).copy(table, at);
    table.writeUInt32LE(end, at + 16);
    table.writeUInt32LE(data.length, at + 20);
    table.writeUInt32LE(flags, at + 24);
    end += data.length;
  }
  return Buffer.concat([table, ...items.map(([, , data]) => data)]);
}

/** Payload blocks of a chunk. */
function chunkBlocksOf({ blockSize, sectorSize }: BuiltImage): number {
  return (2 ** 23 * sectorSize) / blockSize;
}

/** Host offset of a payload block's entry. */
export function entryAt(image: BuiltImage, block: number): number {
  return place.table + (block + Math.floor(block / chunkBlocksOf(image))) * 8;
}

/** The file of an image. */
export function vhdxImage(image: BuiltImage): Buffer {
  const { blocks, blockSize, sectorSize, logId, log } = image;
  const front = Buffer.alloc(place.blocks);
  front.write('vhdxfile');
  front.write('by hand', 8, 'utf16le');
  headerOf(7n, logId).copy(front, 64 * kib);
  headerOf(6n, undefined).copy(front, 128 * kib);
  regionTable().copy(front, 192 * kib);
  regionTable().copy(front, 256 * kib);
  log?.copy(front, place.log);
  metadataOf(image).copy(front, place.metadata);
  const parts = [front];
  let end = front.length;
  const add = (data: Buffer): number => {
    const padded = Buffer.alloc(Math.ceil(data.length / mib) * mib);
    data.copy(padded);
    parts.push(padded);
    end += padded.length;
    return end - padded.length;
  };
  const chunkBlocks = chunkBlocksOf(image);
  const bitmaps = new Map<number, Buffer>();
  for (const { index, state, data, isPresent } of blocks) {
    const at = data === undefined ? 0 : add(data);
    front.writeBigUInt64LE(BigInt(at + state), entryAt(image, index));
    if (isPresent === undefined) continue;
    const chunk = Math.floor(index / chunkBlocks);
    const bitmap = bitmaps.get(chunk) ?? Buffer.alloc(mib);
    bitmaps.set(chunk, bitmap);
    const first = (index % chunkBlocks) * (blockSize / sectorSize);
    for (let sector = 0; sector < blockSize / sectorSize; sector++) {
      if (isPresent(sector)) bitmap[(first + sector) >> 3] |= 1 << ((first + sector) & 7);
    }
  }
  for (const [chunk, bitmap] of bitmaps) {
    const entry = place.table + (chunk * (chunkBlocks + 1) + chunkBlocks) * 8;
    front.writeBigUInt64LE(BigInt(add(bitmap) + 6), entry);
  }
  return Buffer.concat(parts);
}

/** What is read of a disk, from a guest offset on. @param below the same of the parent's disk */
export function contentOf(
  { size, blockSize, sectorSize, blocks }: BuiltImage,
  below: Buffer = Buffer.alloc(0),
  start = 0,
  end = size,
): Buffer {
  const content = Buffer.alloc(end - start);
  below.copy(content);
  for (const { index, state, data, isPresent = () => true } of blocks) {
    for (let at = 0; at < blockSize; at += sectorSize) {
      const guest = index * blockSize + at;
      if (state === 0 || guest < start || guest >= end) continue;
      const from = guest - start;
      const length = Math.min(sectorSize, end - guest);
      if (data === undefined) content.fill(0, from, from + length);
      else if (isPresent(at / sectorSize)) data.copy(content, from, at, at + length);
    }
  }
  return content;
}

/** A write in an entry of a log: of one sector of 4 KiB, or of zeroes. */
export type BuiltWrite =
  | { readonly offset: number; readonly data: Buffer }
  | { readonly offset: number; readonly zeroes: number };

/** An entry of a log. */
export interface BuiltEntry {
  readonly logId: string;
  readonly sequenceNumber: number;
  /** Where in the log the first entry of its sequence begins, in bytes. */
  readonly tail: number;
  readonly writes: readonly BuiltWrite[];
  readonly flushedLength?: number;
  readonly lastLength?: number;
}

/** The bytes of an entry. */
export function logEntry(entry: BuiltEntry): Buffer {
  const { logId, sequenceNumber, tail, writes, flushedLength = 0, lastLength = 0 } = entry;
  const front = Buffer.alloc(Math.ceil((64 + writes.length * 32) / 4096) * 4096);
  const sectors: Buffer[] = [];
  for (const [index, write] of writes.entries()) {
    const at = 64 + index * 32;
    if ('data' in write) {
      front.write('desc', at);
      write.data.copy(front, at + 4, 4092, 4096);
      write.data.copy(front, at + 8, 0, 8);
      const sector = Buffer.from(write.data);
      sector.write('data');
      sector.writeUInt32LE(0, 4);
      sector.writeUInt32LE(sequenceNumber, 4092);
      sectors.push(sector);
    } else {
      front.write('zero', at);
      front.writeBigUInt64LE(BigInt(write.zeroes), at + 8);
    }
    front.writeBigUInt64LE(BigInt(write.offset), at + 16);
    front.writeBigUInt64LE(BigInt(sequenceNumber), at + 24);
  }
  front.write('loge');
  front.writeUInt32LE(front.length + sectors.length * 4096, 8);
  front.writeUInt32LE(tail, 12);
  front.writeBigUInt64LE(BigInt(sequenceNumber), 16);
  front.writeUInt32LE(writes.length, 24);
  guid(logId).copy(front, 32);
  front.writeBigUInt64LE(BigInt(flushedLength), 48);
  front.writeBigUInt64LE(BigInt(lastLength), 56);
  return sign(Buffer.concat([front, ...sectors]));
}

/** A log of 1 MiB with entries at offsets in it, in bytes; what goes over its end begins it. */
export function logWith(entries: readonly (readonly [at: number, entry: Buffer])[]): Buffer {
  const log = Buffer.alloc(mib);
  for (const [at, entry] of entries) {
    entry.copy(log, at);
    if (at + entry.length > mib) entry.copy(log, 0, mib - at);
  }
  return log;
}
