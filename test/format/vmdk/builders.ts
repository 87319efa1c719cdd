/** Parts of VMDK images by hand: those that no tool here writes, and those with settings of one's own. */
import { deflateSync } from 'node:zlib';

const sector = 512;

/** What a grain is: its bytes, one that says it is zeroes, or nothing. */
export type Grain = Buffer | 'zeroed' | undefined;

/** Bytes that look like data, half of which compress: the same for the same seed. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = (at >> 6) % 2 === 0 ? state >>> 24 : (seed + (at >> 8)) & 0xff;
  }
  return bytes;
}

/** The disk that grains make up. @param length bytes of the disk */
export function diskOf(grains: readonly Grain[], grainBytes: number, length: number): Buffer {
  const disk = Buffer.alloc(grains.length * grainBytes);
  for (const [index, grain] of grains.entries()) {
    if (grain instanceof Buffer) grain.copy(disk, index * grainBytes);
  }
  return disk.subarray(0, length);
}

/** Settings of a hosted sparse extent; sizes in sectors. */
export interface HostedSettings {
  readonly capacity: number;
  readonly grain: number;
  readonly grains: readonly Grain[];
  readonly tableEntries?: number;
  readonly version?: number;
  readonly hasZeroedGrains?: boolean;
  readonly compression?: 'none' | 'marked' | 'unmarked';
  /** Whether the directory comes last and a footer says where. */
  readonly hasFooter?: boolean;
  /** The descriptor within; none if left out. */
  readonly descriptor?: string;
  /** Whether grains lie in the file in the opposite order. */
  readonly isReversed?: boolean;
}

/** A hosted sparse extent. */
export function hosted(settings: HostedSettings): Buffer {
  const { capacity, grain, grains, tableEntries = 512, compression = 'none' } = settings;
  const { hasFooter = false, isReversed = false } = settings;
  const file = new Growing();
  file.append(Buffer.alloc(sector));
  if (settings.descriptor !== undefined) {
    file.append(Buffer.from(settings.descriptor.padEnd(20 * sector, '\0')));
  }
  const count = Math.ceil(capacity / (grain * tableEntries));
  const directory = Buffer.alloc(count * 4);
  const tables = Array.from({ length: count }, () => Buffer.alloc(tableEntries * 4));
  const placeTables = (): number => {
    const at = file.append(directory);
    for (const [index, table] of tables.entries()) {
      const own = grains.slice(index * tableEntries, (index + 1) * tableEntries);
      // A table of nothing is left out.
      if (own.every((content) => content === undefined)) continue;
      directory.writeUInt32LE(file.append(table) / sector, index * 4);
    }
    return at / sector;
  };
  const placeGrains = (): void => {
    const order = [...grains.keys()];
    if (isReversed) order.reverse();
    for (const index of order) {
      const content = grains[index];
      if (content === undefined) continue;
      const entry =
        content === 'zeroed'
          ? 1
          : file.append(storedGrain(content, index * grain, compression)) / sector;
      const table = tables[Math.floor(index / tableEntries)];
      table.writeUInt32LE(entry, (index % tableEntries) * 4);
    }
  };
  if (hasFooter) {
    const overhead = file.length / sector;
    placeGrains();
    const header = hostedHeader(settings, placeTables(), overhead);
    for (const part of [marker(3), header, marker(0)]) file.append(part);
    const first = Buffer.from(header);
    first.fill(0xff, 56, 64);
    return file.with(first);
  }
  const at = placeTables();
  const overhead = file.length / sector;
  placeGrains();
  return file.with(hostedHeader(settings, at, overhead));
}

function hostedHeader(settings: HostedSettings, directory: number, overhead: number): Buffer {
  const { capacity, grain, tableEntries = 512, version = 1, compression = 'none' } = settings;
  const header = Buffer.alloc(sector);
  header.write('KDMV');
  header.writeUInt32LE(version, 4);
  const zeroed = settings.hasZeroedGrains === true ? 4 : 0;
  const compressed = compression === 'none' ? 0 : 1 << 16;
  header.writeUInt32LE(1 | zeroed | compressed | (compression === 'marked' ? 1 << 17 : 0), 8);
  header.writeBigUInt64LE(BigInt(capacity), 12);
  header.writeBigUInt64LE(BigInt(grain), 20);
  if (settings.descriptor !== undefined) {
    header.writeBigUInt64LE(1n, 28);
    header.writeBigUInt64LE(20n, 36);
  }
  header.writeUInt32LE(tableEntries, 44);
  header.writeBigUInt64LE(BigInt(directory), 56);
  header.writeBigUInt64LE(BigInt(overhead), 64);
  header.write('\n \r\n', 73, 'latin1');
  header.writeUInt16LE(compression === 'none' ? 0 : 1, 77);
  return header;
}

function storedGrain(
  content: Buffer,
  firstSector: number,
  compression: 'none' | 'marked' | 'unmarked',
): Buffer {
  if (compression === 'none') return content;
  const data = deflateSync(content);
  if (compression === 'unmarked') return data;
  const before = Buffer.alloc(12);
  before.writeBigUInt64LE(BigInt(firstSector));
  before.writeUInt32LE(data.length, 8);
  return Buffer.concat([before, data]);
}

function marker(type: number): Buffer {
  const bytes = Buffer.alloc(sector);
  bytes.writeUInt32LE(type, 12);
  return bytes;
}

/** A file that is written from its begin, in whole sectors. */
class Growing {
  readonly #parts: { readonly at: number; readonly part: Buffer }[] = [];
  /** Bytes. */
  length = 0;

  /** @returns where it lies in the file, in bytes */
  append(part: Buffer): number {
    const at = this.length;
    this.#parts.push({ at, part });
    this.length = at + Math.ceil(part.length / sector) * sector;
    return at;
  }

  /** The file with its first sector; parts that were changed after they were added are as they are now. */
  with(first: Buffer): Buffer {
    const bytes = Buffer.alloc(this.length);
    for (const { at, part } of this.#parts) part.copy(bytes, at);
    first.copy(bytes);
    return bytes;
  }
}

/** A COWD extent, as ESX makes of a snapshot; sizes in sectors. */
export function cowd(capacity: number, grain: number, grains: readonly Grain[]): Buffer {
  const tableEntries = 4096;
  const tables = Math.ceil(capacity / (grain * tableEntries));
  const directory = Buffer.alloc(Math.ceil((tables * 4) / sector) * sector);
  const parts: Buffer[] = [];
  let next = 4 + directory.length / sector;
  for (let table = 0; table < tables; table += 1) {
    const own = grains.slice(table * tableEntries, (table + 1) * tableEntries);
    if (own.every((content) => content === undefined)) continue;
    const bytes = Buffer.alloc(tableEntries * 4);
    directory.writeUInt32LE(next, table * 4);
    parts.push(bytes);
    next += bytes.length / sector;
    for (const [index, content] of own.entries()) {
      if (!(content instanceof Buffer)) continue;
      bytes.writeUInt32LE(next, index * 4);
      parts.push(content);
      next += grain;
    }
  }
  const header = Buffer.alloc(4 * sector);
  header.write('COWD');
  header.writeUInt32LE(1, 4);
  header.writeUInt32LE(3, 8);
  header.writeUInt32LE(capacity, 12);
  header.writeUInt32LE(grain, 16);
  header.writeUInt32LE(4, 20);
  header.writeUInt32LE(tables, 24);
  header.writeUInt32LE(next, 28);
  return Buffer.concat([header, directory, ...parts]);
}

/** What a grain of an SESparse extent is. */
export type SeGrain = Grain | 'unmapped';

const seTableBytes = 64 * sector;
const seGrainBytes = 8 * sector;

/**
 * An SESparse extent.
 *
 * @param numberOf gives each stored grain its number in the file
 */
export function seSparse(
  capacity: number,
  grains: readonly SeGrain[],
  numberOf: (index: number) => number = (index) => index,
): Buffer {
  const tableEntries = seTableBytes / 8;
  const tables = Math.ceil(capacity / (8 * tableEntries));
  const directorySectors = Math.ceil((tables * 8) / sector);
  const tablesAt = 2 + directorySectors;
  const grainsAt = tablesAt + tables * 64;
  const stored = grains.flatMap((content, index) => (content instanceof Buffer ? [index] : []));
  const most = Math.max(0, ...stored.map((_, order) => numberOf(order) + 1));
  const file = Buffer.alloc(grainsAt * sector + most * seGrainBytes);
  const words = [0xcafebaben, 0x200000001n, BigInt(capacity), 8n, 64n, 0n, 0n, 0n, 0n, 0n, 1n, 1n];
  const places = [
    0,
    0,
    0,
    0,
    2,
    directorySectors,
    tablesAt,
    tables * 64,
    0,
    0,
    0,
    0,
    grainsAt,
    most * 8,
  ];
  [...words, ...places.map(BigInt)].forEach((word, index) =>
    file.writeBigUInt64LE(word, index * 8),
  );
  file.writeBigUInt64LE(0xcafecafen, sector);
  let nextTable = 0;
  let order = 0;
  for (let table = 0; table < tables; table += 1) {
    const own = grains.slice(table * tableEntries, (table + 1) * tableEntries);
    if (own.every((content) => content === undefined)) continue;
    file.writeBigUInt64LE(0x1000000000000000n + BigInt(nextTable), 2 * sector + table * 8);
    const at = tablesAt * sector + nextTable * seTableBytes;
    nextTable += 1;
    for (const [index, content] of own.entries()) {
      if (content === undefined) continue;
      let entry = content === 'unmapped' ? 0x1000000000000000n : 0x2000000000000000n;
      if (content instanceof Buffer) {
        const number = BigInt(numberOf(order));
        order += 1;
        entry = 0x3000000000000000n | ((number & 0xfffn) << 48n) | (number >> 12n);
        content.copy(file, grainsAt * sector + Number(number) * seGrainBytes);
      }
      file.writeBigUInt64LE(entry, at + index * 8);
    }
  }
  return file;
}

/** The text of a descriptor. */
export function descriptor(
  createType: string,
  extents: readonly string[],
  more: readonly string[] = [],
): string {
  return [
    '# Disk DescriptorFile',
    'version=1',
    'CID=12345678',
    ...(more.some((line) => line.startsWith('parentCID')) ? [] : ['parentCID=ffffffff']),
    `createType="${createType}"`,
    ...more,
    '',
    '# Extent description',
    ...extents,
    '',
    '# The Disk Data Base',
    '#DDB',
    'ddb.adapterType = "ide"',
    '',
  ].join('\n');
}
