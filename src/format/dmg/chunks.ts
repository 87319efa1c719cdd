/** The chunks of a UDIF image: what each holds of the disk, and where it lies in the file. */
import { maxChunkBytes, maxOffset } from '../../limits.js';
import { invalidImage } from '../failures.js';
import type { MappedLayout } from '../mapped/mapping.js';
import { uint64 } from './big-endian.js';

const sectorBytes = 512;

/** Types of chunks; compressed ones have the highest bit set. */
export const ChunkType = {
  zero: 0,
  raw: 1,
  /** Of no meaning to who made the image: it reads as zeroes. */
  ignored: 2,
  adc: 0x80000004,
  zlib: 0x80000005,
  bzip2: 0x80000006,
  lzfse: 0x80000007,
  lzma: 0x80000008,
} as const;

/** Entries that describe no bytes of the disk. */
const comment = 0x7ffffffe;
const terminator = 0xffffffff;

const tableMagic = 0x6d697368;
const tableHeaderBytes = 204;
const entryBytes = 40;

/** The chunks, in guest order, the numbers of each at one index; in bytes. */
export interface DmgLayout extends MappedLayout {
  readonly types: Uint32Array;
  /** Guest offsets. */
  readonly starts: Float64Array;
  readonly lengths: Float64Array;
  /** Host offsets. */
  readonly offsets: Float64Array;
  readonly storedLengths: Float64Array;
}

interface Chunk {
  readonly type: number;
  readonly start: number;
  readonly length: number;
  readonly offset: number;
  readonly storedLength: number;
}

/**
 * Reads and checks tables of chunks; data that are none are passed over.
 *
 * @param size bytes of the disk
 * @param dataOffset host offset in bytes, which offsets of chunks count from
 */
export function layoutOf(
  tables: readonly DataView[],
  size: number,
  dataOffset: number,
  filename: string,
): DmgLayout {
  const chunks: Chunk[] = [];
  for (const table of tables) {
    const isTable = table.byteLength >= tableHeaderBytes + entryBytes;
    if (!isTable || table.getUint32(0) !== tableMagic) continue;
    // What the entries count from: sectors of the disk, bytes of the file.
    const start = uint64(table, 8) * sectorBytes;
    const offset = dataOffset + uint64(table, 0x18);
    const last = table.byteLength - entryBytes;
    for (let at = tableHeaderBytes; at <= last; at += entryBytes) {
      const entry = new DataView(table.buffer, table.byteOffset + at, entryBytes);
      const type = entry.getUint32(0);
      if (type === comment || type === terminator) continue;
      chunks.push(decodeChunk(entry, start, offset, chunks.length, filename));
    }
  }
  const inOrder = chunks.filter(({ length }) => length > 0).sort((a, b) => a.start - b.start);
  for (const [index, { start }] of inOrder.entries()) {
    const before = index > 0 ? inOrder[index - 1] : undefined;
    if (before !== undefined && before.start + before.length > start) {
      throw invalidImage(filename, `two chunks hold sector ${start / sectorBytes}`);
    }
  }
  return {
    size,
    clusterSize: undefined,
    types: Uint32Array.from(inOrder, ({ type }) => type),
    starts: Float64Array.from(inOrder, ({ start }) => start),
    lengths: Float64Array.from(inOrder, ({ length }) => length),
    offsets: Float64Array.from(inOrder, ({ offset }) => offset),
    storedLengths: Float64Array.from(inOrder, ({ storedLength }) => storedLength),
  };
}

function decodeChunk(
  entry: DataView,
  tableStart: number,
  tableOffset: number,
  number: number,
  filename: string,
): Chunk {
  const invalid = (why: string): Error => invalidImage(filename, why);
  const type = entry.getUint32(0);
  const sectors = uint64(entry, 0x10);
  const isStored = type !== ChunkType.zero && type !== ChunkType.ignored;
  const mostSectors = maxChunkBytes / sectorBytes;
  if (isStored && sectors > mostSectors) {
    const max = `is larger than max (${mostSectors})`;
    throw invalid(`sector count ${sectors} for chunk ${number} ${max}`);
  }
  const storedLength = uint64(entry, 0x20);
  if (storedLength > maxChunkBytes) {
    const max = `is larger than max (${maxChunkBytes})`;
    throw invalid(`length ${storedLength} for chunk ${number} ${max}`);
  }
  const start = tableStart + uint64(entry, 8) * sectorBytes;
  const length = sectors * sectorBytes;
  const offset = tableOffset + uint64(entry, 0x18);
  if (start + length > maxOffset || offset + storedLength > maxOffset) {
    throw invalid(`chunk ${number} lies beyond what can be addressed`);
  }
  return { type, start, length, offset, storedLength };
}
