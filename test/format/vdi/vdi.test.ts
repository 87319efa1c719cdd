/** VDI images of QEMU's making, and some changed by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { TableCache } from '../../../src/format/mapped/table-cache.js';
import { VdiMapping } from '../../../src/format/vdi/mapping.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import {
  type Damage,
  assertReadsAsQemu,
  assertRefusals,
  extentsOf,
  openReadOnly,
  setNumber,
  memoryFile,
  numbers32,
  placeOf,
  writeByQemu,
} from '../vhdx/referee.js';

const mib = 1024 * 1024;
const mapAt = 512;

async function make(t: TestContext, options: string, size: string): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.vdi');
  await runOk('qemu-img', ['create', '-q', '-f', 'vdi', '-o', options, file, size]);
  return file;
}

test('a dynamic image, its blocks in no order', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'static=off', '9437696');
  await writeByQemu(file, 'vdi', [
    'write -P 1 5M 200k',
    'write -P 2 0 2M',
    'write -P 3 2M 1M',
    'write -P 4 4095k 2k',
    'write -P 5 9437184 512',
  ]);
  await assertReadsAsQemu(t, file, 'vdi');
});

test('a static image, which is one extent', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'static=on', '4M');
  await writeByQemu(file, 'vdi', ['write -P 1 1000k 100k', 'write -P 2 3M 1M']);
  await assertReadsAsQemu(t, file, 'vdi');
  await using image = await openReadOnly(file, 'vdi');
  assert.equal((await extentsOf(image)).length, 1);
  const { clusterSize, dirtyFlag } = await image.info();
  assert.deepEqual({ clusterSize, dirtyFlag }, { clusterSize: mib, dirtyFlag: false });
});

test('a table of several pieces', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  // 64 KiB of the map are 16 GiB of the disk, less the header that precedes it.
  const file = await make(t, 'static=off', '40G');
  const edge = (64 * 1024 - mapAt) / 4;
  const at = (block: number): string => `${block * mib}`;
  await writeByQemu(file, 'vdi', [
    ...[edge - 1, edge, edge + 1, 2 * edge + 200].map((block) => `write -P 7 ${at(block)} 1M`),
    'write -P 8 20000k 1k',
  ]);
  await using image = await openReadOnly(file, 'vdi');
  const found = await extentsOf(image);
  const map = await runOk('qemu-img', ['map', '--output=json', '-f', 'vdi', file]);
  const expected = (JSON.parse(map) as { start: number; length: number; data: boolean }[])
    .filter(({ data }) => data)
    .map(({ start, length }) => [start, length]);
  const ours = found.filter(({ data }) => data === true);
  assert.deepEqual(
    ours.map(({ start, length }) => [start, length]),
    expected,
  );
  const across = Buffer.alloc(3 * mib);
  await image.read(across, (edge - 1) * mib);
  assert.ok(across.every((byte) => byte === 7));
});

test('an odd size is rounded up; discarded blocks, and those beyond the end of the file, are zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'static=off', '6M');
  await writeByQemu(file, 'vdi', ['write -P 1 0 5M']);
  const bytes = await readFile(file);
  bytes.writeBigUInt64LE(BigInt(6 * mib - 700), 0x170);
  bytes.writeUInt32LE(0xfffffffe, mapAt + 4);
  bytes.writeUInt32LE(4711, mapAt + 12);
  await writeFile(file, bytes);
  const content = await assertReadsAsQemu(t, file, 'vdi');
  assert.equal(content.length, 6 * mib - 512);
  await writeFile(file, bytes.subarray(0, bytes.length - 300_000));
  await assertReadsAsQemu(t, file, 'vdi');
});

test('one lookup finds blocks that follow one another, and no others', async () => {
  const entries = [5, 6, 7, 7, 0xffffffff, 0xfffffffe, 0xffffffff, 0xfffffffd, 0xfffffffe];
  const file = memoryFile([[mapAt, numbers32(entries, 'LE')]]);
  const size = entries.length * mib;
  const places = { mapOffset: mapAt, dataOffset: 4096, isStatic: false };
  const counts = { blocks: entries.length, allocatedBlocks: 5 };
  const layout = { size, clusterSize: mib, ...places, ...counts };
  const mapping = new VdiMapping(layout, new TableCache(file));
  const place = async (start: number): Promise<unknown> => {
    const { kind, length, ...more } = await placeOf(mapping, start, size - start);
    return [kind, length, 'offset' in more ? more.offset : undefined];
  };
  assert.deepEqual(await place(100), ['data', 3 * mib - 100, 4096 + 5 * mib + 100]);
  assert.deepEqual(await place(3 * mib), ['data', mib, 4096 + 7 * mib]);
  assert.deepEqual(await place(4 * mib + 1), ['zero', 3 * mib - 1, undefined]);
  assert.deepEqual(await place(7 * mib), ['data', mib, 4096 + 0xfffffffd * mib]);
  assert.deepEqual(await place(8 * mib), ['zero', mib, undefined]);
});

test('what is refused', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'static=off', '3M');
  await writeByQemu(file, 'vdi', ['write -P 1 0 1M']);
  const damages: readonly Damage[] = [
    {
      what: 'signature',
      change: setNumber(0x40, 0xbeda1070, 'LE32'),
      says: 'Image not in VDI format (bad signature beda1070)',
    },
    {
      what: 'version',
      change: setNumber(0x44, 0x00010000, 'LE32'),
      says: 'unsupported VDI image (version 1.0)',
    },
    {
      what: 'place of the map',
      change: setNumber(0x154, 0x201, 'LE32'),
      says: 'unsupported VDI image (unaligned block map offset 0x201)',
    },
    {
      what: 'place of the data',
      change: setNumber(0x158, 0x401, 'LE32'),
      says: 'unsupported VDI image (unaligned data offset 0x401)',
    },
    {
      what: 'sector size',
      change: setNumber(0x168, 4096, 'LE32'),
      says: 'unsupported VDI image (sector size 4096 is not 512)',
    },
    {
      what: 'block size',
      change: setNumber(0x178, 2 * mib, 'LE32'),
      says: 'unsupported VDI image (block size 2097152 is not 1048576)',
    },
    {
      what: 'largest disk',
      change: setNumber(0x170, 2n ** 63n, 'LE64'),
      says: 'Unsupported VDI image size (size is 0x8000000000000000, max supported is 0x1fffff8000000)',
    },
    {
      what: 'more disk than blocks',
      change: setNumber(0x170, 3 * mib + 1, 'LE64'),
      says: 'unsupported VDI image (disk size 3146240, image bitmap has room for 3145728)',
    },
    {
      what: 'more blocks than there may be',
      change: setNumber(0x180, 0x1fffff81, 'LE32'),
      says: 'unsupported VDI image (too many blocks 536870785, max is 536870784)',
    },
    {
      what: 'link to another image',
      change: setNumber(0x1a8 + 15, 1, '8'),
      says: 'unsupported VDI image (non-NULL link UUID)',
    },
    {
      what: 'parent',
      change: setNumber(0x1b8, 1, '8'),
      says: 'unsupported VDI image (non-NULL parent UUID)',
    },
    {
      what: 'map beyond the file',
      change: setNumber(0x154, 0x7ffffe00, 'LE32'),
      says: 'The block map lies beyond the end of the file',
      qemu: 'reads',
    },
    {
      what: 'no header',
      change: (bytes) => bytes.subarray(0, 100),
      says: 'unsupported VDI image (sector size 0 is not 512)',
    },
    {
      what: 'empty file',
      change: () => Buffer.alloc(0),
      says: 'Image not in VDI format (bad signature 00000000)',
    },
  ];
  await assertRefusals(file, 'vdi', damages);
});
