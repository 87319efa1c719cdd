/** QED images of QEMU's making, and some changed by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { TableCache } from '../../../src/format/mapped/table-cache.js';
import { QedMapping } from '../../../src/format/qed/mapping.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import {
  type Damage,
  assertMapsAsQemu,
  assertReads,
  assertReadsAsQemu,
  assertRefusals,
  memoryFile,
  numbers64,
  openReadOnly,
  pattern,
  placeOf,
  setNumber,
  writeByQemu,
} from '../vhdx/referee.js';

const mib = 1024 * 1024;
const writes = [
  'write -P 1 5M 200k',
  'write -P 2 0 2M',
  'write -P 3 2M 1M',
  'write -P 4 4095k 2k',
  'write -P 5 8M 512',
  'write -z 1M 128k',
  'write -z 6M 256k',
];

async function make(
  t: TestContext,
  words: readonly string[],
): Promise<{ file: string; folder: string }> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qed');
  await writeFile(path.join(folder, 'base.raw'), pattern(3, 7 * mib));
  await runOk(
    'qemu-img',
    ['create', '-q', '-f', 'qed', ...words.slice(0, -1), file, words.at(-1)!],
    {
      cwd: folder,
    },
  );
  return { file, folder };
}

for (const options of [
  'cluster_size=4k,table_size=2',
  'cluster_size=64k,table_size=4',
  'cluster_size=1M,table_size=16',
]) {
  test(`${options}, without a backing file`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const { file } = await make(t, ['-o', options, '8389120']);
    await writeByQemu(file, 'qed', writes);
    await assertReadsAsQemu(t, file, 'qed');
  });

  test(`${options}, on a shorter raw file`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const { file } = await make(t, ['-o', options, '-b', 'base.raw', '-F', 'raw', '8389120']);
    await writeByQemu(file, 'qed', writes);
    await assertReadsAsQemu(t, file, 'qed');
    await using image = await openReadOnly(file, 'qed');
    const { backingFilename, backingFormat } = await image.info();
    assert.deepEqual(
      { backingFilename, backingFormat },
      {
        backingFilename: 'base.raw',
        backingFormat: 'raw',
      },
    );
  });
}

test('a backing file of a format that is probed, and an image that needs a check', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const { file, folder } = await make(t, ['1M']);
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'base.raw', 'base.qcow2'], {
    cwd: folder,
  });
  const words = ['create', '-q', '-f', 'qed', '-b', 'base.qcow2', '-F', 'qcow2', file];
  await runOk('qemu-img', words, { cwd: folder });
  await writeByQemu(file, 'qed', writes.slice(1, 3));
  const bytes = await readFile(file);
  bytes.writeUInt8(bytes.readUInt8(16) | 2, 16);
  await writeFile(file, bytes);
  await assertReadsAsQemu(t, file, 'qed');
  await using image = await openReadOnly(file, 'qed');
  assert.equal((await image.info()).backingFormat, undefined);
  assert.equal(image.backing?.format, 'qcow2');
});

test('tables of one cluster, which QEMU refuses though the format has them', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const { file } = await make(t, ['-o', 'cluster_size=4k,table_size=2', '1M']);
  await writeByQemu(file, 'qed', ['write -P 1 0 300k', 'write -P 2 700k 100k']);
  const content = await assertReadsAsQemu(t, file, 'qed');
  // What the first halves of the tables map is the same.
  const bytes = await readFile(file);
  bytes.writeUInt32LE(1, 8);
  await writeFile(file, bytes);
  assert.notEqual((await run('qemu-img', ['info', '-f', 'qed', file])).code, 0);
  await assertReads(t, file, 'qed', content);
});

test('many L2 tables, most of which are not there', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const { file } = await make(t, ['-o', 'cluster_size=4k,table_size=2', '3G']);
  await writeByQemu(file, 'qed', [
    'write -P 1 4190208 8192',
    'write -P 2 1G 64k',
    'write -P 3 3221221376 4096',
  ]);
  await assertMapsAsQemu(file, 'qed');
  // From within what no table maps, into what one does.
  await using image = await openReadOnly(file, 'qed');
  const across = Buffer.alloc(6 * mib, 0xee);
  await image.read(across, 1024 * mib - 5 * mib);
  assert.ok(across.subarray(0, 5 * mib).every((byte) => byte === 0));
  assert.ok(across.subarray(5 * mib, 5 * mib + 65536).every((byte) => byte === 2));
});

test('one lookup finds clusters that follow one another, and no others', async () => {
  const size = 4096;
  const reach = 512 * size;
  const clusters = [7, 8, 9, 9, 0, 0, 11].map((number) => number * size);
  const file = memoryFile([
    [size, numbers64([0, 2 * size, 0, 0], 'LE')],
    [2 * size, numbers64([...clusters, 1, 1, 0], 'LE')],
  ]);
  const disk = 4 * reach;
  const mapping = new QedMapping(
    {
      size: disk,
      clusterSize: size,
      tableBytes: size,
      l1TableOffset: size,
      clustersStart: size,
      clustersEnd: 12 * size,
      needsCheck: false,
      backing: undefined,
    },
    file.filename,
    new TableCache(file),
  );
  const find = async (start: number): Promise<unknown> => {
    const { kind, length, ...more } = await placeOf(mapping, start, disk - start);
    return [kind, length, 'offset' in more ? more.offset : undefined];
  };
  assert.deepEqual(await find(100), ['unallocated', reach - 100, undefined]);
  assert.deepEqual(await find(reach + 1), ['data', 3 * size - 1, 7 * size + 1]);
  assert.deepEqual(await find(reach + 3 * size), ['data', size, 9 * size]);
  assert.deepEqual(await find(reach + 4 * size), ['unallocated', 2 * size, undefined]);
  assert.deepEqual(await find(reach + 6 * size), ['data', size, 11 * size]);
  assert.deepEqual(await find(reach + 7 * size), ['zero', 2 * size, undefined]);
  assert.deepEqual(await find(2 * reach + 1), ['unallocated', 2 * reach - 1, undefined]);
});

test('what is refused', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const { file } = await make(t, [
    ...['-o', 'cluster_size=4k,table_size=2', '-b', 'base.raw', '-F', 'raw', '1M'],
  ]);
  // The second run of clusters lies behind the L2 table, at the end of the file.
  await writeByQemu(file, 'qed', ['write -P 1 0 64k', 'write -P 2 64k 64k']);
  const bytes = await readFile(file);
  const l1 = Number(bytes.readBigUInt64LE(40));
  const l2 = Number(bytes.readBigUInt64LE(l1));
  const offsetIsInvalid = 'QED table offset is invalid';
  const nameIsInvalid = 'QED backing filename offset is invalid';
  const damages: readonly Damage[] = [
    { what: 'magic', change: setNumber(0, 0, '8'), says: 'Image not in QED format' },
    {
      what: 'feature',
      change: setNumber(16, 2n ** 63n + 8n, 'LE64'),
      says: 'Unsupported QED features: 8000000000000008',
    },
    ...[2048, 5000, 2 ** 27].map((size) => ({
      what: `cluster size ${size}`,
      change: setNumber(4, size, 'LE32'),
      says: 'QED cluster size is invalid',
    })),
    ...[0, 3, 32].map((size) => ({
      what: `table size ${size}`,
      change: setNumber(8, size, 'LE32'),
      says: 'QED table size is invalid',
    })),
    ...[1000n, 2n ** 32n + 512n, 2n ** 63n].map((size) => ({
      what: `image size ${size}`,
      change: setNumber(48, size, 'LE64'),
      says: 'QED image size is invalid',
    })),
    ...[0n, 4097n, BigInt(bytes.length - 4096), 2n ** 63n].map((offset) => ({
      what: `table offset ${offset}`,
      change: setNumber(40, offset, 'LE64'),
      says: offsetIsInvalid,
    })),
    { what: 'header size', change: setNumber(12, 2, 'LE32'), says: offsetIsInvalid },
    { what: 'no header', change: setNumber(12, 0, 'LE32'), says: nameIsInvalid },
    { what: 'place of the name', change: setNumber(56, 4090, 'LE32'), says: nameIsInvalid },
    { what: 'length of the name', change: setNumber(60, 2 ** 32 - 1, 'LE32'), says: nameIsInvalid },
    ...[4097n, 2n ** 62n, BigInt(bytes.length - 4096)].map((offset) => ({
      what: `place of an L2 table, ${offset}`,
      change: setNumber(l1, offset, 'LE64'),
      says: `L2 table offset 0x${Number(offset).toString(16)} is invalid`,
      when: 'read' as const,
      qemu: 'fails' as const,
    })),
    ...[2n, 2n ** 62n, BigInt(bytes.length)].map((offset) => ({
      what: `place of a cluster, ${offset}`,
      change: setNumber(l2, offset, 'LE64'),
      says: `Data cluster offset 0x${Number(offset).toString(16)} is invalid`,
      when: 'read' as const,
      qemu: 'fails' as const,
    })),
    {
      what: 'file that ends within a run of clusters',
      change: (whole) => whole.subarray(0, whole.length - 100),
      says: `Data cluster offset 0x${(bytes.length - 4096).toString(16)} is invalid`,
      when: 'read',
      qemu: 'reads',
    },
    { what: 'empty file', change: () => Buffer.alloc(0), says: 'Image not in QED format' },
  ];
  await assertRefusals(file, 'qed', damages);
});
