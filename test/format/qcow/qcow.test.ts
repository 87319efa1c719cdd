/** Images of the first qcow format of QEMU's making, and some changed by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { QcowMapping } from '../../../src/format/qcow/mapping.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import {
  type Damage,
  assertMapsAsQemu,
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
];

/** A folder with a raw file that has data of every kind, and holes. */
async function folderWithBase(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  const base = Buffer.concat([
    pattern(3, 100_000),
    Buffer.alloc(mib, 'abcd'),
    Buffer.alloc(2 * mib),
    pattern(4, mib + 480),
  ]);
  await writeFile(path.join(folder, 'base.raw'), base);
  return folder;
}

/** Compresses that file. QEMU does so to its end, and then says that it failed. */
async function compress(folder: string): Promise<string> {
  const file = path.join(folder, 'disk.qcow');
  const words = ['-f', 'raw', '-O', 'qcow', 'base.raw', file];
  await run('qemu-img', ['convert', '-c', ...words], { cwd: folder });
  await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow', 'base.raw', file], {
    cwd: folder,
  });
  return file;
}

test('an image without a backing file', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.qcow');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow', file, '8389120']);
  await writeByQemu(file, 'qcow', writes);
  await assertReadsAsQemu(t, file, 'qcow');
});

test('an image on a shorter raw file, whose format is probed', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await folderWithBase(t);
  const file = path.join(folder, 'disk.qcow');
  const words = ['create', '-q', '-f', 'qcow', '-b', 'base.raw', '-F', 'raw', file, '8389120'];
  await runOk('qemu-img', words, { cwd: folder });
  await writeByQemu(file, 'qcow', ['write -P 1 300k 100k', 'write -P 2 5M 3000']);
  await assertReadsAsQemu(t, file, 'qcow');
  await using image = await openReadOnly(file, 'qcow');
  const { backingFilename, backingFormat, clusterSize } = await image.info();
  assert.deepEqual(
    { backingFilename, backingFormat, clusterSize },
    {
      backingFilename: 'base.raw',
      backingFormat: undefined,
      clusterSize: 512,
    },
  );
});

test('compressed clusters, beside others', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await compress(await folderWithBase(t));
  await writeByQemu(file, 'qcow', ['write -P 1 500k 100k', 'write -P 2 3M 3000']);
  await assertReadsAsQemu(t, file, 'qcow');
});

test('tables at odd places, with entries across the pieces that are remembered', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.qcow');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow', file, '8M']);
  await writeByQemu(file, 'qcow', writes.slice(0, 3));
  const bytes = await readFile(file);
  const start = Math.ceil(bytes.length / 65536) * 65536;
  const odd = Buffer.alloc(start + 4 * 65536);
  bytes.copy(odd);
  const l1 = bytes.subarray(48, 48 + 4 * 8);
  const l2 = Number(l1.readBigUInt64BE(0));
  bytes.copy(odd, start + 2 * 65536 - 2001, l2, l2 + 4096);
  bytes.copy(odd, start + 65536 - 13, 48, 48 + 4 * 8);
  odd.writeBigUInt64BE(BigInt(start + 2 * 65536 - 2001), start + 65536 - 13);
  odd.writeBigUInt64BE(BigInt(start + 65536 - 13), 40);
  await writeFile(file, odd);
  await assertReadsAsQemu(t, file, 'qcow');
});

test('a large disk, of which little is there', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.qcow');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow', file, '40G']);
  await writeByQemu(file, 'qcow', ['write -P 1 17179869184 64k', 'write -P 2 42949668864 4096']);
  await assertMapsAsQemu(file, 'qcow');
});

test('one lookup finds clusters that follow one another, and no others', async () => {
  const size = 4096;
  const reach = 512 * size;
  const clusters = [7, 8, 9, 9, 0, 0, 11].map((number) => number * size);
  const file = memoryFile([
    [48, numbers64([0, 2 * size, 0, 0], 'BE')],
    [2 * size, numbers64(clusters, 'BE')],
  ]);
  const disk = 4 * reach;
  const mapping = new QcowMapping(
    {
      size: disk,
      clusterBits: 12,
      clusterSize: size,
      tableBytes: size,
      l1TableOffset: 48,
      isEncrypted: false,
      fileLength: 12 * size,
      backing: undefined,
    },
    file,
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
  assert.deepEqual(await find(2 * reach + 1), ['unallocated', 2 * reach - 1, undefined]);
});

test('data beyond the end of the file are zeroes, and a size has its last sector cut off', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.qcow');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow', file, '1M']);
  await writeByQemu(file, 'qcow', ['write -P 1 0 300k']);
  const bytes = await readFile(file);
  const l2 = Number(bytes.readBigUInt64BE(48));
  bytes.writeBigUInt64BE(2n ** 40n, l2);
  bytes.writeBigUInt64BE(BigInt(mib - 1), 24);
  await writeFile(file, bytes.subarray(0, bytes.length - 5000));
  const content = await assertReadsAsQemu(t, file, 'qcow');
  assert.equal(content.length, mib - 512);
});

test('an encrypted image is described, and not read', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.qcow');
  const words = ['create', '-q', '-f', 'qcow', '--object', 'secret,id=key,data=abc'];
  const options = 'encrypt.format=aes,encrypt.key-secret=key';
  await runOk('qemu-img', [...words, '-o', options, file, '1M']);
  const refusal = {
    code: 'ERR_COWHERD_UNSUPPORTED',
    message: /Encrypted images are not supported/,
  };
  await assert.rejects(openReadOnly(file, 'qcow'), refusal);
  await using image = await openImage(file, { format: 'qcow', readOnly: true, forInfo: true });
  assert.equal((await image.info()).encrypted, true);
  await assert.rejects(image.read(Buffer.alloc(512), 0), refusal);
});

test('what is refused', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await compress(await folderWithBase(t));
  await writeByQemu(file, 'qcow', ['write -P 1 500k 100k']);
  const bytes = await readFile(file);
  const l1 = Number(bytes.readBigUInt64BE(40));
  const l2 = Number(bytes.readBigUInt64BE(l1));
  const compressedAt = l2 + 30 * 8;
  const compressed = bytes.readBigUInt64BE(compressedAt);
  const plainAt = l2 + 130 * 8;
  const stored = Number(compressed & (2n ** 51n - 1n));
  assert.ok(compressed >= 2n ** 63n);
  const tooLarge = 'Image too large';
  const clusterSize = 'Cluster size must be between 512 and 64k';
  const tableSize = 'L2 table size must be between 512 and 64k';
  const whenRead = { when: 'read', qemu: 'fails' } as const;
  const damages: readonly Damage[] = [
    { what: 'magic', change: setNumber(0, 0, '8'), says: 'Image not in qcow format' },
    {
      what: 'version',
      change: setNumber(4, 2, 'BE32'),
      says: 'qcow (v1) does not support qcow version 2',
    },
    {
      what: 'size',
      change: setNumber(24, 1, 'BE64'),
      says: 'Image size is too small (must be at least 2 bytes)',
    },
    { what: 'large size', change: setNumber(24, 2n ** 62n, 'BE64'), says: tooLarge },
    { what: 'largest size', change: setNumber(24, 2n ** 64n - 1n, 'BE64'), says: tooLarge },
    { what: 'small clusters', change: setNumber(32, 8, '8'), says: clusterSize },
    { what: 'large clusters', change: setNumber(32, 17, '8'), says: clusterSize },
    { what: 'small tables', change: setNumber(33, 5, '8'), says: tableSize },
    { what: 'large tables', change: setNumber(33, 14, '8'), says: tableSize },
    { what: 'tables of more than any bits', change: setNumber(33, 255, '8'), says: tableSize },
    {
      what: 'encryption',
      change: setNumber(36, 2, 'BE32'),
      says: 'invalid encryption method in qcow header',
    },
    {
      what: 'length of the name',
      change: (whole) => {
        whole.writeBigUInt64BE(48n, 8);
        whole.writeUInt32BE(1024, 16);
      },
      says: 'Backing file name too long',
    },
    {
      what: 'place of the name',
      change: (whole) => {
        whole.writeBigUInt64BE(2n ** 63n, 8);
        whole.writeUInt32BE(10, 16);
      },
      says: 'Backing file name lies beyond the file',
      qemu: 'fails',
    },
    {
      what: 'place of the L1 table',
      change: setNumber(40, 2n ** 40n, 'BE64'),
      says: 'The L1 table lies beyond the end of the file',
      qemu: 'reads',
    },
    {
      what: 'place of an L2 table',
      change: setNumber(l1, 2n ** 40n, 'BE64'),
      says: 'L2 table offset 0x10000000000 is invalid',
      when: 'read',
      qemu: 'reads',
    },
    {
      what: 'place of an L2 table beyond every file',
      change: setNumber(l1, 2n ** 63n, 'BE64'),
      says: 'L2 table offset 0x8000000000000000 is invalid',
      ...whenRead,
    },
    {
      what: 'unaligned cluster',
      change: setNumber(plainAt, 517, 'BE64'),
      says: 'Data cluster offset 0x205 is invalid',
      ...whenRead,
    },
    {
      what: 'cluster beyond what is an exact number',
      change: setNumber(plainAt, 2n ** 62n, 'BE64'),
      says: 'Data cluster offset 0x4000000000000000 is invalid',
      when: 'read',
      qemu: 'reads',
    },
    {
      what: 'compressed cluster of no bytes',
      change: setNumber(compressedAt, 2n ** 63n + 512n, 'BE64'),
      says: 'Compressed cluster offset 0x200 is invalid',
      ...whenRead,
    },
    {
      what: 'bytes of a compressed cluster',
      change: (whole) => {
        whole.fill(0xff, stored, stored + 100);
      },
      says: 'Compressed cluster cannot be inflated',
      ...whenRead,
    },
    {
      what: 'compressed cluster that lies elsewhere',
      change: setNumber(compressedAt, compressed + 2n ** 40n, 'BE64'),
      says: 'Compressed cluster cannot be inflated',
      ...whenRead,
    },
    { what: 'empty file', change: () => Buffer.alloc(0), says: 'Image not in qcow format' },
  ];
  await assertRefusals(file, 'qcow', damages);
});
