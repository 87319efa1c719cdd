/** Where clusters come from: free ones wherever they are, on files and devices, before anything grows. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { Image } from '../../../../src/image/api/image.js';
import { createImage, formatFile } from '../../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../../src/image/graph/open.js';
import { CowherdError } from '../../../../src/errors.js';
import { loopDevice } from '../../../support/loop-device.js';
import { fill, smallDisk } from '../../../support/small-disk.js';
import { needsTool, run, runOk, temporaryFolder } from '../../../support/tools.js';
import { UsedDevice } from '../../../support/used-device.js';
import { Random } from '../../../stress/random.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const mib = 1024 * 1024;

/** Fills a disk until no space is left. @returns bytes written */
async function fillDisk(image: Image, pieceBytes: number): Promise<number> {
  const piece = new Uint8Array(pieceBytes).fill(7);
  for (let offset = 0; offset + pieceBytes <= image.size; offset += pieceBytes) {
    try {
      await image.write(piece, offset);
    } catch (error) {
      assert.ok(
        error instanceof CowherdError && error.code === 'ERR_COWHERD_NO_SPACE',
        String(error),
      );
      return offset;
    }
  }
  return image.size;
}

test('a device is filled to its end, with as many refcount blocks as that needs', async (t) => {
  for (const clusterSize of [512, 4096]) {
    const bytes = clusterSize === 512 ? 2 * mib : 32 * mib;
    const device = UsedDevice.ofSize(bytes);
    await formatFile(device, { format: 'qcow2', size: 4 * bytes, clusterSize });
    const image = await openImageOn(device.openQueue());
    const written = await fillDisk(image, 16 * clusterSize);
    t.diagnostic(`${clusterSize}: ${written} of ${bytes}`);
    assert.ok(written > 0.9 * bytes, `${written} of ${bytes} bytes could be used`);
    // What is given up can be used again.
    await image.discard(0, bytes / 2);
    assert.ok((await fillDisk(image, 16 * clusterSize)) >= written - 16 * clusterSize);
    const { leaks, corruptions } = await image.check();
    assert.deepEqual({ leaks, corruptions }, { leaks: 0, corruptions: 0 });
    await image.close();
  }
});

test('a real device is filled to its end, and sound', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const device = await loopDevice(t, await temporaryFolder(t), 24 * mib, 0xa5);
  if (device === undefined) return;
  await createImage(device, { format: 'qcow2', size: '64M', clusterSize: 4096 });
  const image = await openImage(device);
  const written = await fillDisk(image, 65536);
  assert.ok(written > 21 * mib, `${written} bytes could be used`);
  await image.close();
  const { code, stdout } = await run('qemu-img', ['check', '-f', 'qcow2', device]);
  assert.equal(code, 0, stdout);
});

test('a file made long enough beforehand does not grow', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'long.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', file, '64M']);
  const handle = await open(file, 'r+');
  await handle.truncate(40 * mib);
  await handle.close();
  const image = await openImage(file);
  for (let offset = 0; offset < 32 * mib; offset += 65536) {
    await image.write(new Uint8Array(65536).fill(5), offset);
  }
  await image.close();
  assert.equal((await stat(file)).size, 40 * mib);
  const { code, stdout } = await run('qemu-img', ['check', file]);
  assert.equal(code, 0, stdout);
});

test('a range that no refcount block counts is used before space is said to be short', async () => {
  const clusterSize = 512;
  const perBlock = (clusterSize * 8) / 16;
  const device = UsedDevice.ofSize(mib);
  await formatFile(device, { format: 'qcow2', size: 4 * mib, clusterSize });
  // A block for the fourth range, which counts itself; the second and third have none.
  const place = 3 * perBlock * clusterSize;
  const block = new DataView(new ArrayBuffer(clusterSize));
  block.setUint16(0, 1);
  device.content.write(new Uint8Array(block.buffer), place);
  const entry = new DataView(new ArrayBuffer(8));
  entry.setBigUint64(0, BigInt(place));
  device.content.write(new Uint8Array(entry.buffer), clusterSize + 3 * 8);
  const image = await openImageOn(device.openQueue());
  const written = await fillDisk(image, clusterSize);
  assert.ok(written > 0.9 * mib, `${written} bytes`);
  const { leaks, corruptions } = await image.check();
  assert.deepEqual({ leaks, corruptions }, { leaks: 0, corruptions: 0 });
  await image.close();
});

test('what another queue gave up, or holds in reserve, is used before space is said to be short', async (t) => {
  const disk = await smallDisk(t, 24 * mib);
  if (disk === undefined) return;
  const file = path.join(disk, 'image.qcow2');
  await createImage(file, { format: 'qcow2', size: '64M' });
  const image = await openImage(file);
  const idle = await image.openQueue();
  const piece = new Uint8Array(mib).fill(3);
  for (let at = 0; at < 16; at++) await idle.write(piece, at * mib);
  await fill(disk, 5 * mib);
  // Given up by a queue that does nothing more, and not flushed.
  await idle.discard(0, 12 * mib);
  for (let at = 20; at < 30; at++) await image.write(piece, at * mib);
  const compressed = new Uint8Array(65536).fill(1);
  await image.writeCompressed(compressed, 40 * mib);
  const { leaks, corruptions } = await image.check();
  assert.deepEqual({ leaks, corruptions }, { leaks: 0, corruptions: 0 });
  await image.close();
  if (!needsTool(t, 'qemu-img')) return;
  const { code, stdout } = await run('qemu-img', ['check', file]);
  assert.equal(code, 0, stdout);
});

/** Random changes: what `qemu-io` does one after the other, and we several at a time. */
interface Change {
  readonly kind: 'write' | 'discard' | 'zero';
  readonly offset: number;
  readonly length: number;
}

function randomChanges(random: Random, count: number, size: number, clusterSize: number): Change[] {
  return Array.from({ length: count }, () => {
    const length = clusterSize * (1 + random.below(4));
    const offset = random.below((size - length) / clusterSize) * clusterSize;
    const kind = random.chance(0.6) ? 'write' : random.chance(0.6) ? 'discard' : 'zero';
    return { kind, offset, length };
  });
}

async function withQemu(file: string, changes: readonly Change[]): Promise<void> {
  const words = { write: 'write -q -P 3', discard: 'discard -q', zero: 'write -q -z -u' };
  const child = spawn('qemu-io', ['-f', 'qcow2', '-d', 'unmap', file], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  const lines = changes.map(({ kind, offset, length }) => `${words[kind]} ${offset} ${length}`);
  child.stdin.end(`${lines.join('\n')}\nquit\n`);
  const [code] = (await once(child, 'exit')) as [number];
  assert.equal(code, 0);
}

async function withCowherd(file: string, changes: readonly Change[]): Promise<void> {
  const image = await openImage(file);
  const queue = await image.openQueue();
  const targets = [image, queue];
  let next = 0;
  const lane = async (number: number): Promise<void> => {
    const target = targets[number % 2];
    for (;;) {
      const index = next++;
      if (index >= changes.length) return;
      const { kind, offset, length } = changes[index];
      if (kind === 'write') await target.write(new Uint8Array(length).fill(3), offset);
      else if (kind === 'discard') await target.discard(offset, length);
      else await target.writeZeroes(offset, length, { unmap: true });
      if (index % 997 === 0) await target.flush();
    }
  };
  await Promise.all(Array.from({ length: 8 }, (_, number) => lane(number)));
  await image.close();
}

for (const [clusterSize, megabytes, count] of [
  [512, 2, 6000],
  [4096, 16, 5000],
  [65536, 64, 2000],
] as const) {
  test(`endless random load keeps a bounded file: clusters of ${clusterSize}`, async (t) => {
    if (!needsTool(t, 'qemu-img') || !needsTool(t, 'qemu-io')) return;
    t.diagnostic(`seed ${seed}`);
    const folder = await temporaryFolder(t);
    const times = Number(process.env['COWHERD_LOAD_TIMES'] ?? 1);
    const size = megabytes * mib;
    const changes = randomChanges(new Random(seed), count * times, size, clusterSize);
    const files = ['theirs', 'ours'].map((name) => path.join(folder, `${name}.qcow2`));
    for (const file of files) await createImage(file, { format: 'qcow2', size, clusterSize });
    await withQemu(files[0], changes);
    await withCowherd(files[1], changes);
    const [theirs, ours] = await Promise.all(files.map((file) => stat(file)));
    t.diagnostic(
      `length ${ours.size / theirs.size}, blocks ${ours.blocks / theirs.blocks} of QEMU's`,
    );
    assert.ok(ours.size <= 1.25 * theirs.size, `${ours.size} bytes, QEMU's ${theirs.size}`);
    assert.ok(
      ours.blocks <= 1.25 * theirs.blocks,
      `${ours.blocks} blocks, QEMU's ${theirs.blocks}`,
    );
    const { code, stdout } = await run('qemu-img', ['check', files[1]]);
    assert.equal(code, 0, stdout);
  });
}

test('the file of a lazy image under check shows no corruption, nor what is being packed a leak', async (t) => {
  const file = path.join(await temporaryFolder(t), 'lazy.qcow2');
  await createImage(file, { format: 'qcow2', size: '16M', lazyRefcounts: true });
  const image = await openImage(file);
  const queue = await image.openQueue();
  await image.write(new Uint8Array(mib).fill(1), 0);
  await queue.writeCompressed(new Uint8Array(65536).fill(2), 4 * mib);
  await image.discard(0, 65536);
  const { leaks, corruptions } = await image.check();
  assert.deepEqual({ leaks, corruptions }, { leaks: 0, corruptions: 0 });
  await queue.writeCompressed(new Uint8Array(65536).fill(4), 5 * mib);
  await image.close();
});
