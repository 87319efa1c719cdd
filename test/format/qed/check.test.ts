/** Checking and repairing QED images, as qemu-img does it, which tells nothing but the counts. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { type CheckedFormat, assertChecks } from '../check-referee.js';
import { writeByQemu } from '../vhdx/referee.js';

const kib = 1024;
const cluster = 64 * kib;
const l1At = cluster;
/** Where QEMU puts the first L2 table: behind the first data cluster. */
const l2At = 7 * cluster;
const qed: CheckedFormat = { format: 'qed', repairs: ['all'], sameFindings: false };

async function make(t: TestContext): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.qed');
  await runOk('qemu-img', ['create', '-q', '-f', 'qed', file, '8M']);
  await writeByQemu(file, 'qed', ['write -P 1 0 100k', 'write -P 2 4M 10k']);
  const bytes = await readFile(file);
  assert.equal(bytes.readBigUInt64LE(l1At), BigInt(l2At), 'the layout that the damages expect');
  return file;
}

function offset(at: number, value: number): (bytes: Buffer) => undefined {
  return (bytes) => {
    bytes.writeBigUInt64LE(BigInt(value), at);
    return undefined;
  };
}

const leaked = (leaks: number, clusters = 11): string =>
  `Leaked clusters: ${leaks} of ${clusters} are referenced by nothing`;

test('damages of the tables', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  await assertChecks(await make(t), qed, [
    { what: 'nothing', change: () => undefined },
    { what: 'an image that was not closed', change: offset(16, 2) },
    {
      what: 'data beyond the end of the file',
      change: offset(l2At, 0x10000000),
      finds: [
        'ERROR L2 table 0x70000 entry 0: data cluster offset 0x10000000 is invalid',
        leaked(1),
      ],
    },
    {
      what: 'data at no cluster',
      change: offset(l2At, 0x90200),
      finds: ['ERROR L2 table 0x70000 entry 0: data cluster offset 0x90200 is invalid', leaked(1)],
    },
    {
      what: 'data in the header',
      change: offset(l2At + 16, 512),
      finds: ['ERROR L2 table 0x70000 entry 2: data cluster offset 0x200 is invalid'],
    },
    {
      what: 'a table where data are',
      change: offset(l2At + 24, l2At),
      finds: ['ERROR Data cluster at 0x70000 overlaps what is referenced already'],
    },
    {
      what: 'two blocks at one place',
      change: offset(l2At + 8, 5 * cluster),
      finds: ['ERROR Data cluster at 0x50000 overlaps what is referenced already', leaked(1)],
    },
    { what: 'a block of nothing', change: offset(l2At, 0), finds: [leaked(1)] },
    { what: 'a block of zeroes', change: offset(l2At, 1), finds: [leaked(1)] },
    {
      what: 'a table beyond the end of the file',
      change: offset(l1At, 0x70000000),
      finds: ['ERROR L1 entry 0: L2 table offset 0x70000000 is invalid', leaked(7)],
    },
    {
      what: 'a table twice',
      change: offset(l1At + 8, l2At),
      finds: ['ERROR L2 table at 0x70000 overlaps what is referenced already'],
    },
    {
      what: 'a file that was cut off',
      change: (bytes) => bytes.subarray(0, bytes.length - cluster),
      finds: ['ERROR L2 table 0x70000 entry 64: data cluster offset 0xb0000 is invalid'],
    },
  ]);
});

test('-r leaks leaves damage, and says that a sound image was checked', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t);
  const folder = path.dirname(file);
  const before = await readFile(file);
  const repair = async (): Promise<number> =>
    (await runCowherd(['check', '-r', 'leaks', 'disk.qed'], folder)).code;
  const damaged = Buffer.from(before);
  offset(l2At, 0x10000000)(damaged);
  offset(16, 2)(damaged);
  await writeFile(file, damaged);
  assert.equal(await repair(), 2);
  assert.ok((await readFile(file)).equals(damaged));

  const unchecked = Buffer.from(before);
  offset(16, 2)(unchecked);
  await writeFile(file, unchecked);
  await assert.rejects(openImage(file, { format: 'qed' }), /has to be checked/);
  assert.equal(await repair(), 0);
  assert.ok((await readFile(file)).equals(before));
  await (await openImage(file, { format: 'qed' })).close();
});

test('an image that is written to is checked between its writes', async (t) => {
  const folder = await temporaryFolder(t);
  await runCowherd(['create', '-q', '-f', 'qed', 'disk.qed', '64M'], folder);
  await using image = await openImage(path.join(folder, 'disk.qed'), { format: 'qed' });
  const writes = Array.from({ length: 40 }, (_, index) =>
    image.write(new Uint8Array(cluster + 512).fill(1), index * 3 * cluster),
  );
  const checks = [image.check(), image.check()];
  const more = image.write(new Uint8Array(cluster).fill(2), 50 * 1024 * kib);
  for (const { corruptions, leaks, checkErrors } of await Promise.all(checks)) {
    assert.deepEqual([corruptions, leaks, checkErrors], [0, 0, 0]);
  }
  await Promise.all([...writes, more]);
  assert.equal((await image.check()).allocatedClusters, 81);
});
