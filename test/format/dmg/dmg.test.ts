/** UDIF images made by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CowherdError } from '../../../src/errors.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';
import { pattern } from '../vmdk/builders.js';
import {
  type Compared,
  assertFails,
  assertReads,
  assertReadsAsQemu,
  assertRefusals,
  bytes32,
  bytes64,
} from '../vmdk/referee.js';
import { type Chunk, type DmgSettings, dmg, packedChunk, rawChunk, zlibChunk } from './builders.js';

const sector = 512;
const udif: Compared = { format: 'dmg', map: 'promises' };
const zeroes = (sectors: number): Chunk => ({ type: 0, sectors });
const ignored = (sectors: number): Chunk => ({ type: 2, sectors });

/** Chunks of every kind that is read, and one after the other where they lie so in the file. */
const tables: readonly (readonly Chunk[])[] = [
  [
    zlibChunk(pattern(1, 512 * sector)),
    rawChunk(pattern(2, 3 * sector)),
    rawChunk(pattern(3, 40 * sector)),
    zeroes(100),
    ignored(60),
    zeroes(0),
    zlibChunk(pattern(4, 512 * sector)),
    zlibChunk(pattern(5, sector)),
  ],
  [rawChunk(pattern(6, 7 * sector)), zeroes(5000), zlibChunk(pattern(7, 300 * sector))],
];

for (const where of ['property list', 'resources'] as const) {
  for (const [what, more] of [
    ['', {}],
    [' after other data', { dataOffset: 1000 }],
    [' with a trailer before the last bytes', { isPadded: true }],
    [' with a disk that ends within a chunk', { sectors: 6400 }],
  ] as const) {
    test(`chunks in a ${where}${what}`, async (t) => {
      if (!needsTool(t, 'qemu-img')) return;
      const folder = await temporaryFolder(t);
      const file = path.join(folder, 'disk.dmg');
      await writeFile(file, dmg({ tables, in: where, ...more }));
      await assertReadsAsQemu(t, file, udif);
    });
  }
}

test('chunks that do not stand in guest order, which QEMU does not find', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.dmg');
  const own = [pattern(1, 8 * sector), pattern(2, 8 * sector), pattern(3, 8 * sector)];
  const places = [16, 0, 8];
  const chunks = own.map((content, index) => ({ ...zlibChunk(content), first: places[index] }));
  await writeFile(file, dmg({ tables: [chunks], in: 'property list', sectors: 24 }));
  await assertReads(t, file, Buffer.concat([own[1], own[2], own[0]]), udif);
});

for (const tool of ['bzip2', 'xz'] as const) {
  test(`chunks packed with ${tool}`, async (t) => {
    if (!needsTool(t, tool)) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.dmg');
    const parts = [pattern(1, 512 * sector), Buffer.alloc(512 * sector, 9), pattern(3, sector)];
    const chunks = parts.map((part) => packedChunk(tool, part));
    await writeFile(file, dmg({ tables: [[...chunks, zeroes(3)]], in: 'property list' }));
    const whole = Buffer.concat([...parts, Buffer.alloc(3 * sector)]);
    await assertReads(t, file, whole, udif);
  });

  test(`chunks packed with ${tool} that are damaged, too long or too short`, async (t) => {
    if (!needsTool(t, tool)) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.dmg');
    const good = packedChunk(tool, pattern(1, 64 * sector));
    const stored = good.stored!;
    const turned = Buffer.from(stored);
    turned[Math.floor(stored.length / 2)] ^= 0x10;
    // Fifty million zeroes in a few bytes, of which the chunk has room for none.
    const bomb = packedChunk(tool, Buffer.alloc(50_000_000 - (50_000_000 % sector)));
    for (const [what, chunk] of [
      ['turned', { ...good, stored: turned }],
      ['cut', { ...good, stored: stored.subarray(0, -20) }],
      ['empty', { ...good, stored: Buffer.alloc(0) }],
      ['long', { ...good, sectors: 63 }],
      ['short', { ...good, sectors: 65 }],
      ['a bomb', { ...bomb, sectors: 1 }],
      ['of another kind', { ...good, stored: zlibChunk(pattern(1, 64 * sector)).stored! }],
    ] as const) {
      await writeFile(file, dmg({ tables: [[chunk]], in: 'property list' }));
      await assertFails(file, 'dmg', 'read', (message) => {
        assert.equal(message, `'${file}': compressed chunk 0 is damaged`, what);
      });
    }
  });
}

test('what the disk’s map tells', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.dmg');
  await writeFile(file, dmg({ tables, in: 'property list' }));
  await using image = await openImage(file, { format: 'dmg', readOnly: true });
  const told: string[] = [];
  for await (const { length, zero, compressed } of image.map()) {
    told.push(`${length / sector} ${zero ? 'zeroes' : compressed ? 'compressed' : 'data'}`);
  }
  assert.deepEqual(told, [
    '512 compressed',
    '43 data',
    '160 zeroes',
    '513 compressed',
    '7 data',
    '5000 zeroes',
    '300 compressed',
  ]);
  assert.equal(image.clusterSize, undefined);
});

for (const [type, name] of [
  [0x80000004, 'compressed with ADC'],
  [0x80000042, 'of unknown type 0x80000042'],
] as const) {
  test(`chunks ${name} are refused where they are read`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.dmg');
    const unread = { type, sectors: 8, stored: pattern(1, 900) };
    const chunks = [rawChunk(pattern(2, 8 * sector)), unread, zeroes(8)];
    await writeFile(file, dmg({ tables: [chunks], in: 'property list' }));
    await using image = await openImage(file, { format: 'dmg', readOnly: true });
    const buffer = Buffer.alloc(8 * sector);
    await image.read(buffer, 0);
    assert.ok(buffer.equals(pattern(2, 8 * sector)));
    await image.read(buffer, 16 * sector);
    await assert.rejects(image.read(Buffer.alloc(1), 9 * sector), (error: unknown) => {
      assert.ok(error instanceof CowherdError);
      assert.equal(error.code, 'ERR_COWHERD_UNSUPPORTED');
      assert.equal(error.message, `'${file}': chunks ${name} cannot be read`);
      return true;
    });
    // Without its modules the real tool does not read them either.
    const { code } = await run('qemu-img', ['convert', '-f', 'dmg', file, `${file}.raw`]);
    assert.notEqual(code, 0);
  });
}

test('damaged images are refused', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.dmg');
  const settings: DmgSettings = {
    tables: [[zlibChunk(pattern(1, 8 * sector)), rawChunk(pattern(2, 8 * sector)), zeroes(8)]],
    in: 'resources',
  };
  const bytes = dmg(settings);
  await writeFile(file, bytes);
  const trailer = bytes.length - sector;
  const fork = Number(bytes.readBigUInt64BE(trailer + 0x28));
  // Behind the fork's header and the table's are entries: a comment, then the chunks.
  const first = fork + 256 + 4 + 204 + 40;
  const be64 = (value: number | bigint): number[] => bytes64(value, 'BE');
  const beyond = 'lies beyond the UDIF trailer';
  const fails = { qemu: 'fails' } as const;
  const read = { when: 'read', ...fails } as const;
  await assertRefusals(
    file,
    [
      { what: 'magic', at: trailer, bytes: [0], says: 'Could not locate UDIF trailer in dmg file' },
      {
        ...{ what: 'data fork', at: trailer + 0x18, bytes: be64(trailer + 1), ...fails },
        says: `the data fork ${beyond}`,
      },
      {
        ...{ what: 'fork', at: trailer + 0x28, bytes: be64(trailer), ...fails },
        says: `the resource fork ${beyond}`,
      },
      {
        ...{ what: 'fork’s length', at: trailer + 0x30, bytes: be64(trailer - fork + 1), ...fails },
        says: `the resource fork ${beyond}`,
      },
      {
        ...{ what: 'list', at: trailer + 0xe0, bytes: be64(2n ** 60n), ...fails },
        says: `the property list ${beyond}`,
      },
      {
        ...{ what: 'no tables', at: trailer + 0x30, bytes: be64(0), ...fails },
        says: 'nothing describes the chunks of the image',
      },
      {
        ...{ what: 'size', at: trailer + 0x1ec, bytes: be64(2n ** 61n), ...fails },
        says: 'Image is too big',
      },
      {
        ...{ what: 'data of the fork', at: fork, bytes: bytes32(0x10000000, 'BE'), ...fails },
        says: 'the resource fork is invalid',
      },
      {
        ...{ what: 'length of data', at: fork + 8, bytes: bytes32(0, 'BE'), ...fails },
        says: 'the resource fork is invalid',
      },
      {
        ...{ what: 'length of a resource', at: fork + 256, bytes: bytes32(99999, 'BE'), ...fails },
        says: 'the resource fork is invalid',
      },
      {
        ...{ what: 'sectors', at: first + 16, bytes: be64(131073) },
        says: 'sector count 131073 for chunk 0 is larger than max (131072)',
      },
      {
        ...{ what: 'length', at: first + 40 + 32, bytes: be64(67108865) },
        says: 'length 67108865 for chunk 1 is larger than max (67108864)',
      },
      {
        ...{ what: 'place', at: first + 24, bytes: be64(2n ** 62n), ...fails },
        says: 'chunk 0 lies beyond what can be addressed',
      },
      {
        ...{ what: 'overlap', at: first + 40 + 8, bytes: be64(7), ...fails },
        says: 'two chunks hold sector 7',
      },
      {
        ...{ what: 'gap', at: first + 16, bytes: be64(7), ...read },
        says: `no chunk holds the disk's byte ${7 * sector}`,
      },
      {
        ...{ what: 'short zeroes', at: first + 80 + 16, bytes: be64(7), ...read },
        says: `no chunk holds the disk's byte ${23 * sector}`,
      },
      {
        ...{
          what: 'short data',
          at: first + 40 + 32,
          bytes: be64(4095),
          when: 'read',
          qemu: 'reads',
        },
        says: 'chunk 1 has fewer bytes than it holds of the disk',
      },
      { what: 'data', at: 30, bytes: [1, 2, 3, 4], ...read, says: 'compressed chunk 0 is damaged' },
      {
        ...{ what: 'cut data', at: first + 32, bytes: be64(20), ...read },
        says: 'compressed chunk 0 is damaged',
      },
    ],
    'dmg',
  );
  await writeFile(file, '');
  await assertFails(file, 'dmg', 'opened', (message) => {
    assert.equal(message, `Could not open '${file}': dmg file must be at least 512 bytes long`);
  });
});

test('damaged property lists are refused', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.dmg');
  const bytes = dmg({ tables: [[rawChunk(pattern(2, 8 * sector))]], in: 'property list' });
  await writeFile(file, bytes);
  const last = bytes.lastIndexOf('</data>');
  await assertRefusals(
    file,
    [{ what: 'end', at: last, bytes: [0x5b], says: 'the property list is invalid', qemu: 'fails' }],
    'dmg',
  );
  // One that is too large to be read at a time.
  const large = Buffer.concat([Buffer.alloc(16 * 1024 * 1024 + 1, 0x20), bytes.subarray(-sector)]);
  const trailer = large.length - sector;
  large.writeBigUInt64BE(0n, trailer + 0xd8);
  large.writeBigUInt64BE(BigInt(trailer), trailer + 0xe0);
  await writeFile(file, large);
  await assertFails(file, 'dmg', 'opened', (message) => {
    assert.equal(
      message,
      `Could not open '${file}': the property list is larger than 16777216 bytes`,
    );
  });
});
