/** Several buffers in one request: one of the host where it can be, through one buffer where it cannot. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { createImage, formatFile } from '../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../src/image/graph/open.js';
import { openPool } from '../../../src/image/threads/pool.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { temporaryFolder } from '../../support/tools.js';

/** Notes how often several buffers reach the file as one request. */
class Counting extends MemoryFile {
  readonly vectors: number[] = [];

  override readVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    this.vectors.push(buffers.length);
    return super.readVector(buffers, offset);
  }

  override writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    this.vectors.push(buffers.length);
    return super.writeVector(buffers, offset);
  }
}

function pages(count: number, fill: number): Uint8Array[] {
  return Array.from({ length: count }, (_, index) => new Uint8Array(4096).fill(fill + index));
}

for (const format of ['qcow2', 'raw'] as const) {
  test(`what lies in one piece of a ${format} image is one request`, async () => {
    const file = new Counting('disk');
    await formatFile(file, { format, size: 1 << 20 });
    await using image = await openImageOn(file, { format });
    await image.write(new Uint8Array(1 << 20).fill(9), 0);
    file.vectors.length = 0;
    await image.writev(pages(16, 1), 65536);
    const found = pages(16, 0);
    await image.readv(found, 65536);
    assert.deepEqual(found, pages(16, 1));
    assert.deepEqual(file.vectors, [16, 16]);
  });
}

test('what is not there yet is written as one cluster', async () => {
  const file = new Counting('disk');
  await formatFile(file, { format: 'qcow2', size: 1 << 20 });
  await using image = await openImageOn(file, { format: 'qcow2' });
  await image.writev(pages(3, 1), 5000);
  const found = pages(3, 0);
  await image.readv(found, 5000);
  assert.deepEqual(found, pages(3, 1));
  assert.equal(image.stats().total.allocatedClusters, 1);
  const zeroes = pages(2, 7);
  await image.readv(zeroes, 500_000);
  assert.deepEqual(
    zeroes,
    pages(2, 0).map((page) => page.fill(0)),
  );
});

test('more buffers than the host takes at once, and large ones', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: 16 << 20 });
  const sizes = [...Array.from({ length: 3000 }, (_, index) => index % 700), 3 << 20, 1, 5 << 20];
  const parts = sizes.map((size, index) => new Uint8Array(size).fill(index));
  await using image = await openImage(file);
  await image.writev(parts, 777);
  const found = sizes.map((size) => new Uint8Array(size));
  await image.readv(found, 777);
  for (const [index, part] of parts.entries()) assert.equal(Buffer.compare(found[index], part), 0);
});

test('a pool, zeroes that are looked for, and a disk that must stay raw', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: 1 << 20 });
  {
    await using pool = await openPool(file, { queues: 2, threads: 1 });
    await pool.writev(pages(4, 3), 4096);
    const found = pages(4, 0);
    await pool.readv(found, 4096);
    assert.deepEqual(found, pages(4, 3));
  }
  await using image = await openImage(file, { detectZeroes: 'unmap' });
  await image.writev([new Uint8Array(30_000), new Uint8Array(35_536)], 0);
  for await (const { zero } of image.map({ length: 65536 })) assert.equal(zero, true);
  const raw = path.join(folder, 'disk.raw');
  await createImage(raw, { format: 'raw', size: 1 << 20 });
  await using probed = await openImage(raw);
  const magic = [
    Buffer.from('QF'),
    Buffer.from('I\u{fb}'.normalize(), 'latin1'),
    Buffer.alloc(508),
  ];
  await assert.rejects(probed.writev(magic, 0), { code: 'ERR_COWHERD_INVALID_ARGUMENT' });
});
