/** What is refused of VHDX images, field by field. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { needsTool, temporaryFolder } from '../../support/tools.js';
import { type Damage, assertRefusals, pattern, setNumber } from './referee.js';
import { type BuiltImage, changeSigned, entryAt, guid, place, vhdxImage } from './vhdx-builder.js';

const mib = 1024 * 1024;
const kib = 1024;
const headerAt = 64 * kib;
const regionsAt = 192 * kib;

const dynamic: BuiltImage = {
  size: 4 * mib,
  blockSize: mib,
  sectorSize: 512,
  blocks: [
    { index: 0, state: 6, data: pattern(1, mib) },
    { index: 2, state: 6, data: pattern(2, mib) },
  ],
};

/** Changes the header that counts. */
function inHeader(change: (header: Buffer) => void): (file: Buffer) => void {
  return changeSigned(headerAt, 4096, change);
}

/** Changes the region table that counts, and takes the other one away. */
function inRegions(change: (table: Buffer) => void): (file: Buffer) => void {
  return (file) => {
    changeSigned(regionsAt, 64 * kib, change)(file);
    file.fill(0, 256 * kib, 320 * kib);
  };
}

/** Changes the metadata table's entry of an item. */
function inEntry(index: number, change: (entry: Buffer) => void): (file: Buffer) => void {
  return (file) => {
    change(file.subarray(place.metadata + 32 + index * 32));
  };
}

const noHeader = 'No valid VHDX header found';
const noRegions = 'No valid VHDX region table found';
const logOffset = 'Invalid VHDX log offset';
const regionOffset = 'Invalid VHDX region offset';
const metadataTable = 'Invalid VHDX metadata table';
const fails = { qemu: 'fails' } as const;

const ofHeaders: readonly Damage[] = [
  { what: 'signature', change: setNumber(0, 0, '8'), says: 'Image not in VHDX format', ...fails },
  { what: 'empty file', change: () => Buffer.alloc(0), says: 'Image not in VHDX format', ...fails },
  {
    what: 'both headers',
    change: (file) => {
      file.writeUInt8(1, headerAt + 100);
      file.writeUInt8(1, 2 * headerAt + 100);
    },
    says: noHeader,
  },
  {
    what: 'two headers of one number, that differ',
    change: inHeader((header) => {
      header.writeBigUInt64LE(6n, 8);
      header.writeUInt8(1, 16);
    }),
    says: noHeader,
  },
  {
    what: 'version',
    change: (file) => {
      inHeader(setNumber(66, 2, '8'))(file);
      file.fill(0, 2 * headerAt, 2 * headerAt + 4096);
    },
    says: noHeader,
  },
  { what: 'log at 0', change: inHeader(setNumber(72, 0, 'LE64')), says: logOffset, ...fails },
  {
    what: 'unaligned log',
    change: inHeader(setNumber(72, mib + 4096, 'LE64')),
    says: logOffset,
    ...fails,
  },
  {
    what: 'log beyond every file',
    change: inHeader(setNumber(72, 2n ** 63n, 'LE64')),
    says: logOffset,
    qemu: 'reads',
  },
  {
    what: 'version of the log',
    change: inHeader((header) => {
      header.fill(1, 48, 64);
      header.writeUInt16LE(1, 64);
    }),
    says: 'Unsupported VHDX log version 1',
    ...fails,
  },
  {
    what: 'length of the log',
    change: inHeader((header) => {
      header.fill(1, 48, 64);
      header.writeUInt32LE(mib + 4096, 68);
    }),
    says: 'Invalid VHDX log length',
    ...fails,
  },
  {
    what: 'large log',
    change: inHeader((header) => {
      header.fill(1, 48, 64);
      header.writeUInt32LE(17 * mib, 68);
      header.writeBigUInt64LE(BigInt(64 * mib), 72);
    }),
    says: 'VHDX log of 17825792 bytes is too large to be replayed',
    qemu: 'unasked',
  },
];

const ofRegions: readonly Damage[] = [
  {
    what: 'both region tables',
    change: (file) => {
      file.writeUInt8(1, regionsAt + 5000);
      file.writeUInt8(1, 256 * kib + 5000);
    },
    says: noRegions,
    ...fails,
  },
  { what: 'signature', change: inRegions(setNumber(0, 0, '8')), says: noRegions, ...fails },
  {
    what: 'number of regions',
    change: inRegions(setNumber(8, 2048, 'LE32')),
    says: 'Too many VHDX regions',
    ...fails,
  },
  {
    what: 'no metadata',
    change: inRegions(setNumber(8, 1, 'LE32')),
    says: 'The VHDX region table names no block allocation table or metadata',
    ...fails,
  },
  {
    what: 'a region that has to be known',
    change: inRegions((table) => {
      table.writeUInt32LE(3, 8);
      guid('01234567-89AB-CDEF-0123-456789ABCDEF').copy(table, 80);
      table.writeBigUInt64LE(BigInt(64 * mib), 96);
      table.writeUInt32LE(mib, 104);
      table.writeUInt32LE(1, 108);
    }),
    says: 'Unsupported VHDX region 01234567-89AB-CDEF-0123-456789ABCDEF',
    ...fails,
  },
  {
    what: 'a region that is there twice',
    change: inRegions((table) => {
      table.copy(table, 48, 16, 32);
    }),
    says: 'VHDX region 2DC27766-F623-4200-9D64-115E9BFD4A08 is there twice',
    ...fails,
  },
  {
    what: 'region in the header section',
    change: inRegions(setNumber(32, 512 * kib, 'LE64')),
    says: regionOffset,
    qemu: 'unasked',
  },
  {
    what: 'unaligned region',
    change: inRegions(setNumber(32, 3 * mib + 512, 'LE64')),
    says: regionOffset,
    qemu: 'unasked',
  },
  {
    what: 'region beyond every file',
    change: inRegions(setNumber(32, 2n ** 63n, 'LE64')),
    says: regionOffset,
    ...fails,
  },
  {
    what: 'regions over one another',
    change: inRegions(setNumber(32, place.metadata, 'LE64')),
    says: 'VHDX region 2097152-3145728 overlaps with region 2097152-3145728',
  },
  {
    what: 'a region over the log',
    change: inRegions(setNumber(64, mib, 'LE64')),
    says: 'VHDX region 1048576-2097152 overlaps with region 1048576-2097152',
  },
  {
    what: 'small table',
    change: inRegions(setNumber(40, 16, 'LE32')),
    says: 'The VHDX block allocation table is too small for the disk',
    ...fails,
  },
  {
    what: 'table beyond the file',
    change: inRegions(setNumber(32, 64 * mib, 'LE64')),
    says: 'The VHDX block allocation table lies beyond the end of the file',
    qemu: 'reads',
  },
];

const ofMetadata: readonly Damage[] = [
  { what: 'signature', change: setNumber(place.metadata, 0, '8'), says: metadataTable, ...fails },
  {
    what: 'number of items',
    change: setNumber(place.metadata + 11, 255, '8'),
    says: metadataTable,
    ...fails,
  },
  {
    what: 'small region',
    change: inRegions(setNumber(72, 4096, 'LE32')),
    says: metadataTable,
    qemu: 'reads',
  },
  ...[
    ['CAA16737-FA36-4D43-B3B6-33F0AA44E76B', 0],
    ['2FA54224-CD1B-4876-B211-5DBED83BF4B8', 1],
    ['BECA12AB-B2E6-4523-93EF-C309E000C746', 2],
    ['8141BF1D-A96F-4709-BA47-F233A8FAAB5F', 3],
    ['CDA348C7-445D-4471-9CC9-E9885251C556', 4],
  ].flatMap(([id, index]): Damage[] => [
    {
      what: `item ${id} is another one`,
      change: inEntry(Number(index), (entry) => {
        entry.writeUInt8(entry.readUInt8(0) ^ 1, 0);
        entry.writeUInt32LE(0, 24);
      }),
      says: `The VHDX metadata item ${id} is missing`,
      ...fails,
    },
    {
      what: `item ${id} is short`,
      change: inEntry(Number(index), setNumber(20, 3, 'LE32')),
      says: `The VHDX metadata item ${id} is missing`,
      qemu: 'reads',
    },
    {
      what: `item ${id} lies outside`,
      change: inEntry(Number(index), setNumber(16, mib - 3, 'LE32')),
      says: `The VHDX metadata item ${id} lies outside its region`,
      qemu: 'unasked',
    },
  ]),
  {
    what: 'an item of the user',
    change: inEntry(0, setNumber(24, 1, 'LE32')),
    says: 'The VHDX metadata item CAA16737-FA36-4D43-B3B6-33F0AA44E76B is missing',
    qemu: 'reads',
  },
  {
    what: 'an item that is there twice',
    change: inEntry(1, (entry) => {
      guid('CAA16737-FA36-4D43-B3B6-33F0AA44E76B').copy(entry);
    }),
    says: 'The VHDX metadata item CAA16737-FA36-4D43-B3B6-33F0AA44E76B is there twice',
    ...fails,
  },
  {
    what: 'an item that has to be known',
    change: inEntry(4, setNumber(0, 0, '8')),
    says: 'Unsupported VHDX metadata item CDA34800-445D-4471-9CC9-E9885251C556',
    ...fails,
  },
  ...[512 * kib, 512 * mib, 3 * mib].map((size): Damage => ({
    what: `block size ${size}`,
    change: setNumber(place.metadata + 64 * kib, size, 'LE32'),
    says: `Invalid VHDX block size ${size}`,
    ...fails,
  })),
  {
    what: 'sector size',
    change: setNumber(place.metadata + 64 * kib + 32, 1024, 'LE32'),
    says: 'Invalid VHDX logical sector size 1024',
    ...fails,
  },
  {
    what: 'large disk',
    change: setNumber(place.metadata + 64 * kib + 8, 2n ** 46n + 512n, 'LE64'),
    says: `Invalid VHDX disk size ${2 ** 46 + 512}`,
    ...fails,
  },
  {
    what: 'part of a sector',
    change: setNumber(place.metadata + 64 * kib + 8, 4 * mib - 1, 'LE64'),
    says: `Invalid VHDX disk size ${4 * mib - 1}`,
    qemu: 'reads',
  },
  {
    what: 'parent that nothing is said of',
    change: setNumber(place.metadata + 64 * kib + 4, 2, 'LE32'),
    says: 'The VHDX image has a parent, and does not say where it is',
    ...fails,
  },
];

const end = place.blocks + 2 * mib;
const ofTable: readonly Damage[] = [
  {
    what: 'block beyond the file',
    change: setNumber(entryAt(dynamic, 2), end + 6, 'LE64'),
    says: `VHDX BAT entry 2 start offset ${end} points after end of file (${end}). Image has probably been truncated.`,
  },
  {
    what: 'block beyond every file',
    change: setNumber(entryAt(dynamic, 2), 2n ** 63n + 6n, 'LE64'),
    says: `VHDX BAT entry 2 start offset ${2 ** 63} points after end of file (${end}). Image has probably been truncated.`,
    ...fails,
  },
  {
    what: 'end of the file',
    change: (file) => file.subarray(0, file.length - 512),
    says: `VHDX BAT entry 2 end offset ${end - 1} points after end of file (${end - 512}). Image has probably been truncated.`,
  },
  ...[place.log, place.metadata, place.table].map((at): Damage => ({
    what: `block over the structure at ${at}`,
    change: setNumber(entryAt(dynamic, 2), at + 6, 'LE64'),
    says: `VHDX region ${at}-${at + mib} overlaps with region ${at}-${at + mib}`,
  })),
  {
    what: 'block over the header section',
    change: setNumber(entryAt(dynamic, 2), 6, 'LE64'),
    says: `VHDX region 0-${mib} overlaps with region 0-${mib}`,
    qemu: 'unasked',
  },
  ...[4, 7].map((state): Damage => ({
    what: `state ${state}`,
    change: setNumber(entryAt(dynamic, 2), place.blocks + mib + state, 'LE64'),
    says: `VHDX payload block 2 has state ${state}`,
    when: 'read',
    ...fails,
  })),
];

for (const [part, damages] of [
  ['headers', ofHeaders],
  ['region table', ofRegions],
  ['metadata', ofMetadata],
  ['block allocation table', ofTable],
] as const) {
  test(`what is refused of the ${part}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const file = path.join(await temporaryFolder(t), 'disk.vhdx');
    await writeFile(file, vhdxImage(dynamic));
    await assertRefusals(file, 'vhdx', damages);
  });
}

const differencing: BuiltImage = {
  ...dynamic,
  parent: { relative_path: 'parent.vhdx' },
  blocks: [
    { index: 0, state: 7, data: pattern(1, mib), isPresent: (sector) => sector < 100 },
    { index: 2, state: 6, data: pattern(2, mib) },
  ],
};

test('what is refused of a differencing image', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'parent.vhdx'), vhdxImage(dynamic));
  const file = path.join(folder, 'disk.vhdx');
  await writeFile(file, vhdxImage(differencing));
  const locator = place.metadata + 64 * kib + 8 + 8 + 16 + 4 + 4;
  const invalid = 'Invalid VHDX parent locator';
  const nowhere = 'The VHDX image has a parent, and does not say where it is';
  const bitmapEntry = place.table + 4096 * 8;
  const length = place.blocks + 3 * mib;
  const damages: readonly Omit<Damage, 'qemu'>[] = [
    {
      what: 'kind of the locator',
      change: setNumber(locator, 0, 'LE32'),
      says: 'Unsupported VHDX parent locator of type 00000000-D19E-4A81-B789-25B8E9445913',
    },
    { what: 'number of pairs', change: setNumber(locator + 18, 200, '8'), says: invalid },
    { what: 'no pairs', change: setNumber(locator + 18, 0, '8'), says: nowhere },
    { what: 'place of a key', change: setNumber(locator + 20, 2 ** 32 - 1, 'LE32'), says: invalid },
    { what: 'place of a path', change: setNumber(locator + 24, 2 ** 31, 'LE32'), says: invalid },
    { what: 'length of a key', change: setNumber(locator + 29, 255, '8'), says: nowhere },
    {
      what: 'length of the locator',
      change: inEntry(5, setNumber(20, 19, 'LE32')),
      says: invalid,
    },
    {
      what: 'large locator',
      change: (whole) => {
        inEntry(5, setNumber(20, mib + 1, 'LE32'))(whole);
        inRegions(setNumber(72, 2 * mib, 'LE32'))(whole);
        inRegions(setNumber(32, 64 * mib, 'LE64'))(whole);
      },
      says: nowhere,
    },
    {
      what: 'no bitmap',
      change: setNumber(bitmapEntry, 0, 'LE64'),
      says: 'VHDX payload block 0 has no sector bitmap',
      when: 'read',
    },
    {
      what: 'bitmap beyond the file',
      change: setNumber(bitmapEntry, length + 6, 'LE64'),
      says: `VHDX BAT entry 4096 start offset ${length} points after end of file (${length}). Image has probably been truncated.`,
    },
    {
      what: 'bitmap over the log',
      change: setNumber(bitmapEntry, place.log + 6, 'LE64'),
      says: 'VHDX region 1048576-2097152 overlaps with region 1048576-2097152',
    },
  ];
  await assertRefusals(
    file,
    'vhdx',
    damages.map((damage) => ({ ...damage, qemu: 'unasked' })),
  );
});
