/** Closing an image or a queue while something of it still waits, or is under way. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Image } from '../../src/image/api/image.js';
import type { CreateOptions } from '../../src/image/api/options.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../src/image/graph/open.js';
import { TraceFile } from '../../src/storage/filters/trace.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';
import { needsTool, run, temporaryFolder } from '../support/tools.js';

const clusterSize = 4096;
const cluster = new Uint8Array(clusterSize).fill(7);

async function newImage(t: TestContext, options: CreateOptions = {}): Promise<[string, Image]> {
  const file = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: '64M', clusterSize, ...options });
  return [file, await openImage(file)];
}

async function assertSound(t: TestContext, file: string): Promise<void> {
  if (!needsTool(t, 'qemu-img')) return;
  const check = await run('qemu-img', ['check', file]);
  assert.equal(check.code, 0, `${check.stdout}${check.stderr}`);
}

for (const kind of ['a queue', 'the image'] as const) {
  test(`a request that waits at the gate while ${kind} closes is carried out`, async (t) => {
    const [file, image] = await newImage(t);
    const queue = await image.openQueue();
    await queue.write(cluster, 0);
    await queue.flush();
    // The check closes the gate; the write waits for it.
    const check = image.check();
    const write = queue.write(cluster, 32 << 20);
    await Promise.all([kind === 'a queue' ? queue.close() : image.close(), write, check]);
    const { leaks, corruptions } = await check;
    assert.deepEqual({ leaks, corruptions }, { leaks: 0, corruptions: 0 });
    await image.close();
    await assertSound(t, file);
    const again = await openImage(file, { readOnly: true });
    const found = new Uint8Array(clusterSize);
    await again.read(found, 32 << 20);
    await again.close();
    assert.deepEqual(found, cluster);
  });
}

test('a flush under way when its queue closes completes', async (t) => {
  const [file, image] = await newImage(t);
  const other = await attachImage(image.handle());
  for (let round = 0; round < 10; round++) {
    const queue = await other.openQueue();
    await queue.write(cluster, round * 5 * clusterSize);
    const flush = queue.flush();
    await Promise.all([queue.close(), flush]);
  }
  await other.write(cluster, 0);
  const flush = other.flush();
  await Promise.all([other.close(), flush]);
  await image.close();
  await assertSound(t, file);
});

test('a raw image that closes waits for its writes, and syncs after them', async () => {
  const log: string[] = [];
  const memory = new MemoryFile('disk.raw', { schedule: (work) => setTimeout(work, 2) });
  await memory.truncate(1 << 20);
  const traced = new TraceFile(memory, (operation) => {
    log.push(operation.kind);
  });
  const image = await openImageOn(traced, { format: 'raw' });
  const queue = await image.openQueue();
  const writes = Array.from({ length: 40 }, (_, index) => {
    const target = index % 2 === 0 ? image : queue;
    return target.write(cluster, index * clusterSize).then(() => log.push('written'));
  });
  await image.close();
  log.push('closed');
  await Promise.all(writes);
  assert.equal(log.filter((entry) => entry === 'written').length, 40);
  assert.equal(log.lastIndexOf('written') < log.indexOf('flush'), true, log.join(' '));
});
