/** Worker threads that join an open image, leave it in any order, and die in any state. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import type { Image, ImageHandle } from '../../../src/image/api/image.js';
import type { CreateOptions, OpenImageOptions } from '../../../src/image/api/options.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../src/image/graph/open.js';
import { addon } from '../../../src/native/addon.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

/** What a worker of these tests does once it has joined the image. */
interface Orders {
  readonly handle: ImageHandle;
  readonly role: 'write' | 'echo' | 'die' | 'forget';
  readonly part: number;
  readonly how?: 'exit' | 'throw' | 'wait';
}

const mebibyte = 1024 * 1024;
const writeBytes = 8192;
const writesPerPart = 100;

async function work(orders: Orders): Promise<void> {
  const image = await attachImage(orders.handle);
  if (orders.role === 'write') {
    await fillPart(image, orders.part);
    await image.close();
  } else if (orders.role === 'echo') {
    const bytes = new Uint8Array(image.size);
    await image.read(bytes, 0);
    parentPort!.postMessage(bytes);
    await image.close();
  } else if (orders.role === 'forget') {
    // Ends with the image still open.
    await image.write(new Uint8Array(writeBytes).fill(6), 0);
  } else {
    await writeUntilDeath(image, orders);
  }
}

/** Writes every other stretch of a part of the disk. */
async function fillPart(image: Image, part: number): Promise<void> {
  const writes: Promise<void>[] = [];
  for (let index = 0; index < writesPerPart; index++) {
    const buffer = new Uint8Array(writeBytes).fill(part + 1);
    writes.push(image.write(buffer, (part * writesPerPart + index) * 2 * writeBytes));
  }
  await Promise.all(writes);
}

async function writeUntilDeath(image: Image, { how }: Orders): Promise<void> {
  parentPort!.postMessage('joined');
  setTimeout(() => {
    if (how === 'exit') process.exit(0);
    if (how === 'throw') throw new Error('on purpose');
  }, 60);
  for (let round = 0; ; round++) {
    const writes = Array.from({ length: 50 }, (_, index) =>
      image.write(new Uint8Array(writeBytes).fill(9), ((round * 50 + index) % 2000) * writeBytes),
    );
    await Promise.all(writes);
    await image.discard((round % 100) * writeBytes * 4, writeBytes * 3);
    await image.flush();
  }
}

function start(orders: Orders): Worker {
  return new Worker(fileURLToPath(import.meta.url), { workerData: orders });
}

function ended(worker: Worker): Promise<number> {
  return new Promise((resolve, reject) => {
    worker.on('error', reject);
    worker.on('exit', resolve);
  });
}

async function checkSound(t: TestContext, place: string): Promise<void> {
  if (!needsTool(t, 'qemu-img')) return;
  const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', place]);
  assert.equal(code, 0, stdout + stderr);
}

/** Whether the dirty bit stands in the file. */
async function isDirty(place: string): Promise<boolean> {
  const file = await open(place);
  const { buffer } = await file.read(new Uint8Array(80), 0, 80, 0);
  await file.close();
  return (buffer[79] & 1) !== 0;
}

async function newImage(
  t: TestContext,
  create: CreateOptions = {},
  options: OpenImageOptions = {},
): Promise<{ place: string; folder: string; image: Image }> {
  const folder = await temporaryFolder(t);
  const place = path.join(folder, 'shared.qcow2');
  await createImage(place, { format: 'qcow2', size: 64 * mebibyte, ...create });
  return { place, folder, image: await openImage(place, { format: 'qcow2', ...options }) };
}

if (isMainThread) {
  for (const leavesFirst of [false, true]) {
    const when = leavesFirst ? 'before the workers' : 'after the workers';
    test(`four threads fill one image; who opened it leaves ${when}`, async (t) => {
      const lazy = { clusterSize: 4096, lazyRefcounts: true };
      const { place, image } = await newImage(t, lazy, { cacheSize: 1 });
      const handle = image.handle();
      const workers = [0, 1, 2, 3].map((part) => start({ handle, role: 'write', part }));
      const all = Promise.all(workers.map(ended));
      if (leavesFirst) {
        while (image.stats().queues.length < 5) await new Promise((go) => setTimeout(go, 1));
        await image.close();
        await all;
      } else {
        await all;
        assert.equal(await isDirty(place), true, 'the dirty bit stays while someone is there');
        await image.close();
      }
      assert.equal(await isDirty(place), false);
      await checkSound(t, place);
      const again = await openImage(place, { readOnly: true });
      const content = new Uint8Array(2 * writeBytes);
      for (let index = 0; index < 4 * writesPerPart; index++) {
        await again.read(content, index * 2 * writeBytes);
        assert.equal(content[0], Math.floor(index / writesPerPart) + 1);
        assert.equal(content[writeBytes - 1], content[0]);
        assert.equal(content[writeBytes], 0);
      }
      await again.close();
    });
  }

  test('a thread sees the whole chain: backing file, compressed clusters, data file', async (t) => {
    const folder = await temporaryFolder(t);
    const size = 2 * mebibyte;
    const below = randomBytes(size);
    await writeFile(path.join(folder, 'below.raw'), below);
    const middle = path.join(folder, 'middle.qcow2');
    const backing = { backingFile: 'below.raw', backingFormat: 'raw' as const };
    await createImage(middle, { format: 'qcow2', size, ...backing });
    const inMiddle = await openImage(middle);
    const expected = Uint8Array.from(below);
    expected.fill(5, 65536, 2 * 65536);
    await inMiddle.writeCompressed(new Uint8Array(65536).fill(5), 65536);
    await inMiddle.close();
    const top = path.join(folder, 'top.qcow2');
    await createImage(top, {
      format: 'qcow2',
      size,
      backingFile: 'middle.qcow2',
      backingFormat: 'qcow2',
      dataFile: path.join(folder, 'top.data'),
    });
    const image = await openImage(top);
    await image.write(new Uint8Array(1000).fill(6), 5 * 65536 + 7);
    expected.fill(6, 5 * 65536 + 7, 5 * 65536 + 1007);
    const worker = start({ handle: image.handle(), role: 'echo', part: 0 });
    const [read] = await Promise.all([
      new Promise<Uint8Array>((resolve) => worker.on('message', resolve)),
      ended(worker),
    ]);
    assert.ok(Buffer.from(read).equals(expected));
    await image.close();
    await checkSound(t, top);
  });

  test('a raw image is shared too', async (t) => {
    const folder = await temporaryFolder(t);
    const place = path.join(folder, 'disk.raw');
    await createImage(place, { format: 'raw', size: 64 * mebibyte });
    const image = await openImage(place, { format: 'raw' });
    const handle = image.handle();
    await Promise.all([0, 1].map((part) => ended(start({ handle, role: 'write', part }))));
    const buffer = new Uint8Array(1);
    await image.read(buffer, writesPerPart * 2 * writeBytes);
    assert.equal(buffer[0], 2);
    assert.equal(image.stats().total.requests.write, 2 * writesPerPart);
    await image.close();
  });

  test('a thread that has nothing left to do closes the image it has left open', async (t) => {
    const { place, image } = await newImage(t);
    await ended(start({ handle: image.handle(), role: 'forget', part: 0 }));
    assert.equal(image.stats().threads, 1);
    const found = new Uint8Array(writeBytes);
    await image.read(found, 0);
    assert.ok(found.every((byte) => byte === 6));
    await image.close();
    await checkSound(t, place);
  });

  test('what a thread has written and closed survives another that dies', async (t) => {
    const { place, image } = await newImage(t, { clusterSize: 4096 });
    await ended(start({ handle: image.handle(), role: 'write', part: 3 }));
    await ended(start({ handle: image.handle(), role: 'die', part: 0, how: 'exit' }));
    await assert.rejects(image.close(), { code: 'ERR_COWHERD_POISONED' });
    await using again = await openImage(place, { readOnly: true });
    const read = new Uint8Array(writeBytes);
    for (let index = 0; index < writesPerPart; index++) {
      await again.read(read, (3 * writesPerPart + index) * 2 * writeBytes);
      assert.ok(read.every((byte) => byte === 4));
    }
  });

  test('when a thread dies that has a raw image open, the others get a clear error', async (t) => {
    const place = path.join(await temporaryFolder(t), 'shared.raw');
    await createImage(place, { format: 'raw', size: 64 * mebibyte });
    const image = await openImage(place, { format: 'raw' });
    await image.write(new Uint8Array(writeBytes).fill(77), 60 * mebibyte);
    const worker = start({ handle: image.handle(), role: 'die', part: 0, how: 'exit' });
    await ended(worker);
    const poisoned = { code: 'ERR_COWHERD_POISONED', filename: place };
    await assert.rejects(image.read(new Uint8Array(1), 0), poisoned);
    await assert.rejects(image.write(new Uint8Array(1), 0), poisoned);
    await assert.rejects(image.flush(), poisoned);
    await assert.rejects(attachImage(image.handle()), poisoned);
    await image.close();
    const again = await openImage(place, { format: 'raw', readOnly: true });
    const read = new Uint8Array(writeBytes);
    await again.read(read, 60 * mebibyte);
    assert.deepEqual(read, new Uint8Array(writeBytes).fill(77));
    await again.close();
  });

  for (const how of ['exit', 'throw', 'wait'] as const) {
    const name = how === 'wait' ? 'is terminated' : `ends by "${how}"`;
    // Nothing of a thread runs any more when it is terminated, except what the addon has prepared.
    const skip = how === 'wait' && addon === undefined ? 'needs the addon' : false;
    const title = `when a thread ${name} with the image open, the others get a clear error`;
    test(title, { skip }, async (t) => {
      const { place, image } = await newImage(t, { clusterSize: 4096 }, { cacheSize: 1 });
      const durable = new Uint8Array(writeBytes).fill(77);
      await image.write(durable, 60 * mebibyte);
      await image.flush();
      const worker = start({ handle: image.handle(), role: 'die', part: 0, how });
      const gone = new Promise<void>((resolve) =>
        worker.on('exit', () => {
          resolve();
        }),
      );
      worker.on('error', (error) => {
        assert.match(error.message, /on purpose/);
      });
      await new Promise((resolve) => worker.once('message', resolve));
      if (how === 'wait') setTimeout(() => void worker.terminate(), 40);
      let failure: unknown;
      for (let index = 0; failure === undefined; index++) {
        await image
          .write(new Uint8Array(writeBytes).fill(3), (index % 3000) * writeBytes)
          .catch((error: unknown) => (failure = error));
        await new Promise(setImmediate);
      }
      await gone;
      const poisoned = { code: 'ERR_COWHERD_POISONED', filename: place };
      assert.equal((failure as { code: string }).code, poisoned.code);
      await assert.rejects(image.read(new Uint8Array(1), 0), poisoned);
      await assert.rejects(image.flush(), poisoned);
      await assert.rejects(attachImage(image.handle()), poisoned);
      await assert.rejects(image.close(), poisoned);
      if (needsTool(t, 'qemu-img')) {
        const { code, stdout } = await run('qemu-img', ['check', '-f', 'qcow2', place]);
        assert.ok(code === 0 || code === 3, `at most leaks: ${stdout.slice(-500)}`);
      }
      const again = await openImage(place, { format: 'qcow2' });
      const read = new Uint8Array(writeBytes);
      await again.read(read, 60 * mebibyte);
      assert.deepEqual(read, durable);
      await again.close();
    });
  }

  test('nobody joins an image that all have left, or one in memory', async (t) => {
    const { place, image } = await newImage(t);
    const handle = image.handle();
    await image.close();
    await assert.rejects(attachImage(handle), { code: 'ERR_COWHERD_CLOSED', filename: place });
    assert.throws(() => image.handle(), { code: 'ERR_COWHERD_CLOSED' });
    const inMemory = await openImageOn(new MemoryFile('disk'), { format: 'raw' });
    assert.throws(() => inMemory.handle(), { code: 'ERR_COWHERD_UNSUPPORTED' });
    await inMemory.close();
  });

  test('one thread may join an image it has open already', async (t) => {
    const { place, image } = await newImage(t);
    const other = await attachImage(structuredClone(image.handle()));
    await Promise.all([fillPart(image, 0), fillPart(other, 1)]);
    const buffer = new Uint8Array(1);
    await image.read(buffer, writesPerPart * 2 * writeBytes);
    assert.equal(buffer[0], 2);
    await image.close();
    await other.write(buffer, 0);
    await other.close();
    await checkSound(t, place);
  });

  test('checking an image that others write waits for them, and lets them go on', async (t) => {
    const { image } = await newImage(t, { clusterSize: 4096 });
    const worker = start({ handle: image.handle(), role: 'write', part: 0 });
    const finished = ended(worker);
    const results = [];
    for (let round = 0; round < 5; round++) {
      results.push(await image.check());
      await image.write(new Uint8Array(writeBytes).fill(1), 50 * mebibyte + round * writeBytes);
    }
    await finished;
    for (const { corruptions } of results) assert.equal(corruptions, 0);
    await image.close();
  });

  test('a throttle holds all queues of an image, on all threads, to one rate', async (t) => {
    const throttle = { operationsPerSecond: 1000, operationsBurst: 1 };
    const { image } = await newImage(t, {}, { throttle });
    const other = await attachImage(image.handle());
    const begun = performance.now();
    await Promise.all([fillPart(image, 0), fillPart(other, 1)]);
    const seconds = (performance.now() - begun) / 1000;
    // Never faster than the rate; how much slower depends on the machine.
    assert.ok(seconds > 0.18, `${2 * writesPerPart} operations took ${seconds} s`);
    assert.ok(image.stats().total.waits.throttle > 100);
    await Promise.all([image.close(), other.close()]);
  });

  test('a throttle of one queue leaves the others alone, and counts bytes', async (t) => {
    const { image } = await newImage(t);
    const slow = await image.openQueue({
      throttle: { bytesPerSecond: 100 * writeBytes, bytesBurst: 10 * writeBytes },
    });
    const begun = performance.now();
    const writes = Array.from({ length: 20 }, (_, index) =>
      slow.write(new Uint8Array(writeBytes), index * writeBytes),
    );
    await fillPart(image, 1);
    const free = performance.now() - begun;
    await Promise.all(writes);
    const held = performance.now() - begun;
    assert.ok(held >= 85, `twenty writes, ten of them at once, took ${held} ms`);
    assert.ok(free < held, 'the other queue was not held');
    await image.close();
  });
} else {
  await work(workerData as Orders);
}
