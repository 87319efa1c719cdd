/** Checking VMDK images, as qemu-img does it, and a little further. */
import assert from 'node:assert/strict';
import { truncate } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { assertSame, runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { type CheckedFormat, assertChecks } from '../check-referee.js';
import { writeByQemu } from '../vhdx/referee.js';

const vmdk: CheckedFormat = { format: 'vmdk', repairs: [], sameFindings: true };
const sector = 512;

async function make(t: TestContext, subformat: string): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.vmdk');
  const options = ['-o', `subformat=${subformat}`];
  await runOk('qemu-img', ['create', '-q', '-f', 'vmdk', ...options, file, '40M']);
  await writeByQemu(file, 'vmdk', ['write -P 1 0 100k', 'write -P 2 4M 10k', 'write -P 3 39M 1M']);
  return file;
}

/** Host offset of the first grain table, by the directory that the header names. */
function firstTable(bytes: Buffer): number {
  const directory = Number(bytes.readBigUInt64LE(56)) * sector;
  return bytes.readUInt32LE(directory) * sector;
}

test('damages of a sparse image', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  await assertChecks(await make(t, 'monolithicSparse'), vmdk, [
    { what: 'nothing', change: () => undefined },
    {
      what: 'a grain beyond the end of the file',
      change: (bytes) => {
        bytes.writeUInt32LE(1_000_000, firstTable(bytes) + 64 * 4);
        return undefined;
      },
      finds: [
        'ERROR: cluster offset for sector 8192 points after EOF',
        'cowherd: Check failed: Invalid argument',
      ],
    },
    {
      what: 'a file that was cut off',
      change: (bytes) => bytes.subarray(0, bytes.length - 4 * 65536),
      finds: [
        'ERROR: cluster offset for sector 81408 points after EOF',
        'cowherd: Check failed: Invalid argument',
      ],
    },
    {
      what: 'a file that was cut off within a grain',
      change: (bytes) => bytes.subarray(0, bytes.length - 1000),
    },
    {
      // QEMU does not look for that.
      what: 'two grains at one place',
      change: (bytes) => {
        const table = firstTable(bytes);
        bytes.writeUInt32LE(bytes.readUInt32LE(table), table + 9 * 4);
        return undefined;
      },
      finds: ['ERROR: grain of sector 1152 lies where another one does'],
      code: 2,
    },
    {
      // QEMU reads zeroes there, and takes the range for one that was never written.
      what: 'a table beyond the end of the file',
      change: (bytes) => {
        bytes.writeUInt32LE(1_000_000, Number(bytes.readBigUInt64LE(56)) * sector);
        return undefined;
      },
      finds: ['ERROR: grain table 0 of extent 0 lies beyond the end of the file'],
      code: 2,
    },
  ]);
});

test('damages of a compressed image', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const plain = await make(t, 'monolithicSparse');
  const folder = path.dirname(plain);
  const file = path.join(folder, 'stream.vmdk');
  const words = ['convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', plain, file];
  await runOk('qemu-img', words);
  await assertChecks(file, vmdk, [
    { what: 'nothing', change: () => undefined },
    {
      what: 'a grain beyond the end of the file',
      change: (bytes) => {
        const table = firstTable(bytes);
        bytes.writeUInt32LE(1_000_000, table + 4);
        return undefined;
      },
      finds: [
        'ERROR: cluster offset for sector 128 points after EOF',
        'cowherd: Check failed: Invalid argument',
      ],
    },
    {
      // Neither is this: the entries are one after the other, or tables apart.
      what: 'two grains at one place',
      change: (bytes) => {
        const table = firstTable(bytes);
        bytes.writeUInt32LE(bytes.readUInt32LE(table), table + 9 * 4);
        bytes.writeUInt32LE(bytes.readUInt32LE(table + 4), table + 10 * 4);
        return undefined;
      },
      finds: [
        'ERROR: grain of sector 1152 lies where another one does',
        'ERROR: grain of sector 1280 lies where another one does',
      ],
      code: 2,
    },
  ]);
});

test('extents in files of their own, one of which was cut off', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const flat = await make(t, 'monolithicFlat');
  const folder = path.dirname(flat);
  const words = ['check', '-f', 'vmdk', 'disk.vmdk'];
  await assertSame(words, folder);
  await truncate(path.join(folder, 'disk-flat.vmdk'), 30 * 1024 * 1024);
  const { code, stderr } = await runCowherd(words, folder);
  assert.deepEqual([code, stderr], [2, "ERROR: 'disk-flat.vmdk' ends before extent 0 does\n"]);
  await truncate(path.join(folder, 'disk-flat.vmdk'), 0);
  await assertSame(words, folder);
});

test('a repair is refused in one line, and --explain and --queues change nothing of a sound image', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'monolithicSparse');
  const folder = path.dirname(file);
  const refused = await runCowherd(['check', '-r', 'leaks', 'disk.vmdk'], folder);
  assert.deepEqual(
    [refused.code, refused.stderr],
    [63, "cowherd: 'disk.vmdk': images of the vmdk format are checked, and not repaired\n"],
  );
  const explained = await runCowherd(['check', '--explain', '--queues', '2', 'disk.vmdk'], folder);
  assert.deepEqual([explained.code, explained.stderr], [0, '']);
});
