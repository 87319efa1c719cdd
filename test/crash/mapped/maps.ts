/**
 * Where the blocks of an image lie, by an own reading of its bytes from the formats' descriptions, which
 * shares no code with the library; and what of the image is not as a power cut may leave it.
 */

/** Entries of blocks that lie nowhere. */
export const nowhere = -1;
/** Those that read as zeroes, whatever is below. */
export const zeroed = -2;

/** What the tables say. */
export interface BlockMap {
  /** Host offsets in bytes, or one of the marks above, by number of the block. */
  readonly blocks: readonly number[];
  readonly problems: readonly string[];
}

/** How the map of one format is read. @param size bytes of the file; `bytes` may have more, all zero */
export type ReadMap = (
  bytes: DataView,
  size: number,
  blockBytes: number,
  count: number,
) => BlockMap;

const text = (bytes: DataView, at: number, length: number): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString('latin1');
const uint64 = (bytes: DataView, at: number, little: boolean): number =>
  Number(bytes.getBigUint64(at, little));

/** VirtualBox's: a map of numbers of blocks, and how many there are. */
export const readVdiMap: ReadMap = (bytes, _size, blockBytes, count) => {
  const [mapAt, dataAt] = [bytes.getUint32(0x154, true), bytes.getUint32(0x158, true)];
  const counted = bytes.getUint32(0x184, true);
  const problems: string[] = [];
  const blocks = Array.from({ length: count }, (_, block) => {
    const entry = bytes.getUint32(mapAt + block * 4, true);
    if (entry >= 0xfffffffe) return nowhere;
    // Others take the next place by that count.
    if (entry >= counted) problems.push(`block ${block} has place ${entry} of ${counted}`);
    return dataAt + entry * blockBytes;
  });
  return { blocks, problems };
};

/** VHD: a table of sectors, each of a bitmap that says which sectors of the block count. */
export const readVhdMap: ReadMap = (bytes, size, blockBytes, count) => {
  const problems: string[] = [];
  const isFooter = (at: number): boolean => {
    let sum = 0;
    for (let index = 0; index < 512; index++) {
      if (index < 64 || index >= 68) sum += bytes.getUint8(at + index);
    }
    return text(bytes, at, 8) === 'conectix' && bytes.getUint32(at + 64) === ~sum >>> 0;
  };
  if (!isFooter(0)) problems.push('the copy of the footer is damaged');
  const header = uint64(bytes, 16, false);
  const table = uint64(bytes, header + 16, false);
  const bitmapBytes = Math.ceil(blockBytes / 512 / 8 / 512) * 512;
  const blocks = Array.from({ length: count }, (_, block) => {
    const entry = bytes.getUint32(table + block * 4);
    if (entry === 0xffffffff) return nowhere;
    const at = entry * 512;
    for (let index = 0; index < bitmapBytes && at + index < size; index++) {
      if (bytes.getUint8(at + index) === 0xff) continue;
      problems.push(`the bitmap of block ${block} leaves out sectors`);
      break;
    }
    return at + bitmapBytes;
  });
  return { blocks, problems };
};

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc;
});

/** CRC-32C of 4096 bytes whose own checksum counts as zero. */
function headerChecksum(bytes: DataView, at: number): number {
  let crc = ~0;
  for (let index = 0; index < 4096; index++) {
    const byte = index >= 4 && index < 8 ? 0 : bytes.getUint8(at + index);
    crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

/** VHDX: a table of 64-bit entries, whose lowest bits are the state. Disks of one chunk alone. */
export const readVhdxMap: ReadMap = (bytes, _size, _blockBytes, count) => {
  const problems: string[] = [];
  const isWhole = (at: number): boolean =>
    text(bytes, at, 4) === 'head' && bytes.getUint32(at + 4, true) === headerChecksum(bytes, at);
  const headers = [0x10000, 0x20000].filter(isWhole);
  if (headers.length === 0) problems.push('no header is whole');
  const sequence = (at: number): bigint => bytes.getBigUint64(at + 8, true);
  headers.sort((one, other) => Number(sequence(other) - sequence(one)));
  if (headers.some((at) => /[^\0]/.test(text(bytes, at + 48, 16)))) problems.push('a log waits');
  const tableId = '6677c22d23f600429d64115e9bfd4a08';
  let table = 0;
  for (let index = 0; index < bytes.getUint32(0x30000 + 8, true); index++) {
    const at = 0x30000 + 16 + index * 32;
    const id = Buffer.from(text(bytes, at, 16), 'latin1').toString('hex');
    if (id === tableId) table = uint64(bytes, at + 16, true);
  }
  const blocks = Array.from({ length: count }, (_, block) => {
    const low = bytes.getUint32(table + block * 8, true);
    const high = bytes.getUint32(table + block * 8 + 4, true);
    const state = low & 7;
    if (state !== 0 && state !== 2 && state !== 6)
      problems.push(`block ${block} has state ${state}`);
    return state === 6 ? ((low >>> 20) + high * 2 ** 12) * 2 ** 20 : state === 2 ? zeroed : nowhere;
  });
  return { blocks, problems };
};

/** QED: an L1 table of L2 tables of clusters. */
export const readQedMap: ReadMap = (bytes, size, blockBytes, count) => {
  const problems: string[] = [];
  const tableBytes = bytes.getUint32(8, true) * blockBytes;
  const l1 = uint64(bytes, 40, true);
  const entries = tableBytes / 8;
  const tables = new Set([0, l1]);
  for (let index = 0; index < Math.ceil(count / entries); index++) {
    const table = uint64(bytes, l1 + index * 8, true);
    if (table === 0) continue;
    if (table % blockBytes !== 0 || table + tableBytes > size) problems.push(`table at ${table}`);
    for (let at = table; at < table + tableBytes; at += blockBytes) {
      if (tables.has(at)) problems.push(`two tables at ${at}`);
      tables.add(at);
    }
  }
  const blocks = Array.from({ length: count }, (_, block) => {
    const table = uint64(bytes, l1 + Math.floor(block / entries) * 8, true);
    const at = table + (block % entries) * 8;
    if (table === 0 || at + 8 > bytes.byteLength) return nowhere;
    const entry = uint64(bytes, at, true);
    if (tables.has(entry) && entry !== 0) problems.push(`block ${block} lies in a table`);
    return entry === 0 ? nowhere : entry === 1 ? zeroed : entry;
  });
  return { blocks, problems };
};

/** VMDK in one sparse file: a directory of tables of sectors, twice. */
export const readVmdkMap: ReadMap = (bytes, _size, _blockBytes, count) => {
  const problems: string[] = [];
  const entries = bytes.getUint32(44, true);
  const descriptor = text(bytes, uint64(bytes, 28, true) * 512, 512);
  if (!/^CID=[0-9a-f]{8}$/m.test(descriptor)) problems.push('the descriptor has no CID');
  const [spare, own] = [48, 56].map((at) => {
    const directory = uint64(bytes, at, true) * 512;
    return Array.from({ length: count }, (_, block) => {
      const table = bytes.getUint32(directory + Math.floor(block / entries) * 4, true) * 512;
      return bytes.getUint32(table + (block % entries) * 4, true) * 512;
    });
  });
  // The copy may lag behind, or be ahead; it must not name what another grain has.
  const ownerOf = new Map(own.map((offset, block) => [offset, block]));
  for (const [block, offset] of spare.entries()) {
    if (offset === 0 || own[block] === offset) continue;
    if (own[block] !== 0 || ownerOf.has(offset)) {
      problems.push(`the tables differ about grain ${block}`);
    }
  }
  return { blocks: own.map((offset) => (offset === 0 ? nowhere : offset)), problems };
};
