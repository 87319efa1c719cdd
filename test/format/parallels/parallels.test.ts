/** Parallels images of QEMU's making, and some changed by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { ParallelsMapping } from '../../../src/format/parallels/mapping.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import {
  type Damage,
  assertReads,
  assertReadsAsQemu,
  assertRefusals,
  contentByQemu,
  memoryFile,
  numbers32,
  openReadOnly,
  placeOf,
  setNumber,
  writeByQemu,
} from '../vhdx/referee.js';

const mib = 1024 * 1024;
const catalogAt = 64;

async function make(t: TestContext, clusterSize: number, size: string): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.hds');
  const option = `cluster_size=${clusterSize}`;
  await runOk('qemu-img', ['create', '-q', '-f', 'parallels', '-o', option, file, size]);
  return file;
}

const writes = [
  'write -P 1 5M 200k',
  'write -P 2 0 2M',
  'write -P 3 2M 1M',
  'write -P 4 4095k 2k',
  'write -P 5 8M 512',
];

for (const clusterSize of [mib, 64 * 1024, 63 * 512]) {
  test(`clusters of ${clusterSize} bytes, in no order`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const file = await make(t, clusterSize, '8389120');
    await writeByQemu(file, 'parallels', writes);
    const content = await assertReadsAsQemu(t, file, 'parallels');
    // The older kind: offsets in sectors, and a number of sectors of 32 bits.
    const bytes = await readFile(file);
    bytes.write('WithoutFreeSpace');
    const entries = bytes.readUInt32LE(32);
    for (let at = catalogAt; at < catalogAt + 4 * entries; at += 4) {
      bytes.writeUInt32LE((bytes.readUInt32LE(at) * clusterSize) / 512, at);
    }
    bytes.writeUInt32LE(0xdeadbeef, 40);
    const old = `${file}.old`;
    await writeFile(old, bytes);
    assert.ok((await assertReadsAsQemu(t, old, 'parallels')).equals(content));
  });
}

test('an image in use, with an extension, of more disk than catalog', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 64 * 1024, '8M');
  await writeByQemu(file, 'parallels', writes.slice(0, 4));
  const bytes = await readFile(file);
  bytes.writeUInt32LE(0x746f6e59, 44);
  bytes.writeUInt32LE(17_000, 36);
  await writeFile(file, bytes);
  const content = await assertReadsAsQemu(t, file, 'parallels');
  assert.equal(content.length, 17_000 * 512);
  // What extends the format says nothing of the disk's data; QEMU refuses one that it cannot read.
  bytes.writeBigUInt64LE(5n, 56);
  await writeFile(file, bytes);
  assert.equal((await run('qemu-img', ['info', '-f', 'parallels', file])).code, 1);
  await assertReads(t, file, 'parallels', content);
  await using image = await openReadOnly(file, 'parallels');
  const { clusterSize, dirtyFlag } = await image.info();
  assert.deepEqual({ clusterSize, dirtyFlag }, { clusterSize: undefined, dirtyFlag: undefined });
});

test('a catalog that ends before what lies behind it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 64 * 1024, '8M');
  await writeByQemu(file, 'parallels', writes.slice(0, 4));
  const bytes = await readFile(file);
  // Clusters from 2 MiB on have entries that do not count.
  bytes.writeUInt32LE(32, 32);
  await writeFile(file, bytes);
  const content = await assertReadsAsQemu(t, file, 'parallels');
  assert.ok(content[2 * mib - 1] !== 0 && content[2 * mib] === 0);
});

test('one lookup finds clusters that follow one another, and no others', async () => {
  const cluster = 63 * 512;
  const entries = [63, 126, 189, 189, 190, 0, 0, 63];
  const file = memoryFile([[catalogAt, numbers32(entries, 'LE')]]);
  const size = entries.length * cluster;
  const geometry = { size, clusterSize: undefined, clusterBytes: cluster };
  const find = async (offsetUnit: number, start: number): Promise<unknown> => {
    const said = { dataOffset: 0, isInUse: false, isOld: offsetUnit === 512 };
    const layout = { ...geometry, ...said, offsetUnit, catalogEntries: entries.length };
    const mapping = new ParallelsMapping(layout, file);
    const { kind, length, ...more } = await placeOf(mapping, start, size - start);
    return [kind, length, 'offset' in more ? more.offset : undefined];
  };
  assert.deepEqual(await find(512, 100), ['data', 3 * cluster - 100, cluster + 100]);
  assert.deepEqual(await find(512, 3 * cluster), ['data', cluster, 3 * cluster]);
  assert.deepEqual(await find(512, 5 * cluster), ['unallocated', 2 * cluster, undefined]);
  assert.deepEqual(await find(cluster, 3 * cluster), ['data', 2 * cluster, 189 * cluster]);
});

test('clusters beyond the end of the file are zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 64 * 1024, '1M');
  await writeByQemu(file, 'parallels', ['write -P 1 0 256k']);
  const bytes = await readFile(file);
  bytes.writeUInt32LE(0x70000000, catalogAt + 4);
  await writeFile(file, bytes.subarray(0, bytes.length - 70_000));
  await assertReadsAsQemu(t, file, 'parallels');
});

test('what is refused', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 64 * 1024, '1M');
  await writeByQemu(file, 'parallels', ['write -P 1 0 256k']);
  const notParallels = 'Image not in Parallels format';
  const damages: readonly Damage[] = [
    { what: 'magic', change: setNumber(0, 0x58, '8'), says: notParallels },
    { what: 'version', change: setNumber(16, 1, 'LE32'), says: notParallels },
    {
      what: 'no clusters',
      change: setNumber(28, 0, 'LE32'),
      says: 'Invalid image: Zero sectors per track',
    },
    {
      what: 'cluster size',
      change: setNumber(28, 4186128, 'LE32'),
      says: 'Invalid image: Too big cluster',
    },
    {
      what: 'catalog',
      change: setNumber(32, 0x20000000, 'LE32'),
      says: 'Catalog too large',
    },
    {
      what: 'disk of more bytes than can be counted',
      change: setNumber(36, 2n ** 55n, 'LE64'),
      says: 'File too large',
      qemu: 'fails',
    },
    {
      what: 'file that ends in the catalog',
      change: (bytes) => bytes.subarray(0, catalogAt + 63),
      says: 'The catalog lies beyond the end of the file',
      qemu: 'reads',
    },
    {
      what: 'cluster beyond every file',
      change: (bytes) => {
        // Of clusters as large as they may be.
        bytes.writeUInt32LE(4186127, 28);
        bytes.writeUInt32LE(0xffffffff, catalogAt);
      },
      says: 'cluster 0 is outside image',
      when: 'read',
      qemu: 'unasked',
    },
  ];
  await assertRefusals(file, 'parallels', damages);
  assert.equal((await contentByQemu(file, 'parallels')).length, mib);
});
