/** UDIF images by hand: no tool here makes them. */
import { spawnSync } from 'node:child_process';
import { deflateSync } from 'node:zlib';

const sector = 512;

/** A chunk of an image. */
export interface Chunk {
  readonly type: number;
  /** Sectors of the disk. */
  readonly sectors: number;
  /** As it lies in the file. */
  readonly stored?: Buffer;
  /** The first sector, counted from its table's; after the chunk before if left out. */
  readonly first?: number;
}

/** Settings of an image. */
export interface DmgSettings {
  /** The chunks, by table. */
  readonly tables: readonly (readonly Chunk[])[];
  /** Where the tables are. */
  readonly in: 'resources' | 'property list';
  /** Bytes before the data of chunks, which their offsets count from. */
  readonly dataOffset?: number;
  /** Sectors of the disk; what the chunks hold if left out. */
  readonly sectors?: number;
  /** Whether bytes follow the trailer, up to a whole sector. */
  readonly isPadded?: boolean;
}

const terminator = 0xffffffff;
const comment = 0x7ffffffe;

/** A chunk of zlib's. */
export function zlibChunk(content: Buffer): Chunk {
  return { type: 0x80000005, sectors: content.length / sector, stored: deflateSync(content) };
}

/** A chunk that the real tool packed, `bzip2` or `xz`. */
export function packedChunk(tool: 'bzip2' | 'xz', content: Buffer): Chunk {
  const type = tool === 'bzip2' ? 0x80000006 : 0x80000008;
  const { stdout } = spawnSync(tool, ['-c'], { input: content });
  return { type, sectors: content.length / sector, stored: stdout };
}

/** A chunk as it is. */
export function rawChunk(content: Buffer): Chunk {
  return { type: 1, sectors: content.length / sector, stored: content };
}

/** The file. Its parts: the data of the chunks, then the tables, then the trailer. */
export function dmg(settings: DmgSettings): Buffer {
  const { dataOffset = 0, isPadded = false } = settings;
  const data: Buffer[] = [];
  const tables: Buffer[] = [];
  let stored = 0;
  let start = 0;
  for (const chunks of settings.tables) {
    // Offsets count from the data fork's begin, and from where the table says.
    const from = stored;
    const entries: Buffer[] = [entry(comment, 0, 0, 0, 0)];
    let next = 0;
    for (const { type, sectors, stored: bytes = Buffer.alloc(0), first = next } of chunks) {
      entries.push(entry(type, first, sectors, stored - from, bytes.length));
      data.push(bytes);
      stored += bytes.length;
      next = first + sectors;
    }
    entries.push(entry(terminator, next, 0, stored - from, 0));
    const header = Buffer.alloc(204);
    header.write('mish');
    header.writeUInt32BE(1, 4);
    header.writeBigUInt64BE(BigInt(start), 8);
    header.writeBigUInt64BE(BigInt(next), 16);
    header.writeBigUInt64BE(BigInt(from), 24);
    header.writeUInt32BE(entries.length, 200);
    tables.push(Buffer.concat([header, ...entries]));
    start += next;
  }
  const isList = settings.in === 'property list';
  const description = isList ? propertyList(tables) : resourceFork(tables);
  const describedAt = dataOffset + stored;
  const trailer = Buffer.alloc(sector);
  trailer.write('koly');
  trailer.writeUInt32BE(4, 4);
  trailer.writeUInt32BE(sector, 8);
  trailer.writeBigUInt64BE(BigInt(dataOffset), 0x18);
  trailer.writeBigUInt64BE(BigInt(stored), 0x20);
  const partAt = isList ? 0xd8 : 0x28;
  trailer.writeBigUInt64BE(BigInt(describedAt), partAt);
  trailer.writeBigUInt64BE(BigInt(description.length), partAt + 8);
  trailer.writeBigUInt64BE(BigInt(settings.sectors ?? start), 0x1ec);
  return Buffer.concat([
    Buffer.alloc(dataOffset, 0xdd),
    ...data,
    description,
    trailer,
    Buffer.alloc(isPadded ? sector - ((describedAt + description.length) % sector) : 0),
  ]);
}

function entry(
  type: number,
  first: number,
  sectors: number,
  offset: number,
  length: number,
): Buffer {
  const bytes = Buffer.alloc(40);
  bytes.writeUInt32BE(type);
  for (const [index, value] of [first, sectors, offset, length].entries()) {
    bytes.writeBigUInt64BE(BigInt(value), 8 + index * 8);
  }
  return bytes;
}

function propertyList(tables: readonly Buffer[]): Buffer {
  const items = tables.map((table, index) => {
    const lines = table.toString('base64').match(/.{1,44}/g) ?? [];
    return [
      '\t\t\t<dict>',
      '\t\t\t\t<key>Data</key>',
      '\t\t\t\t<data>',
      ...lines.map((line) => `\t\t\t\t${line}`),
      '\t\t\t\t</data>',
      `\t\t\t\t<key>ID</key><string>${index}</string>`,
      '\t\t\t</dict>',
    ].join('\n');
  });
  const text = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<plist version="1.0">',
    '<dict><key>resource-fork</key><dict>',
    '\t\t<key>blkx</key><array>',
    ...items,
    '\t\t</array>',
    '\t\t<key>plst</key><array><dict><key>Data</key><data>',
    Buffer.alloc(300, 7).toString('base64'),
    '</data></dict></array>',
    '</dict></dict></plist>',
    '',
  ];
  return Buffer.from(text.join('\n'));
}

function resourceFork(tables: readonly Buffer[]): Buffer {
  // What is no table of chunks is among the resources as well.
  const resources = [...tables, Buffer.alloc(300, 7)].flatMap((table) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(table.length);
    return [length, table];
  });
  const data = Buffer.concat(resources);
  const header = Buffer.alloc(256);
  header.writeUInt32BE(256);
  header.writeUInt32BE(256 + data.length, 4);
  header.writeUInt32BE(data.length, 8);
  header.writeUInt32BE(50, 12);
  return Buffer.concat([header, data, Buffer.alloc(50)]);
}
