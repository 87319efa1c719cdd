/** Another image put below one that is open: on its queues, on other threads, and while requests run. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { Image, ImageHandle, RequestTarget } from '../../../src/image/api/image.js';
import type { Extent } from '../../../src/image/api/reports.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const mebibyte = 1024 * 1024;
const size = 4 * mebibyte;

/** A raw disk whose bytes are all the same. */
async function disk(folder: string, byte: number, bytes = size): Promise<string> {
  const name = path.join(folder, `disk-${byte}.raw`);
  await createImage(name, { format: 'raw', size: bytes });
  await using image = await openImage(name, { format: 'raw' });
  await image.write(new Uint8Array(bytes).fill(byte), 0);
  return name;
}

async function over(t: TestContext): Promise<{ folder: string; top: string; below: string[] }> {
  const folder = await temporaryFolder(t);
  const below = await Promise.all([1, 2, 3].map((byte) => disk(folder, byte)));
  const top = path.join(folder, 'top.qcow2');
  await createImage(top, { format: 'qcow2', backingFile: below[0], backingFormat: 'raw' });
  return { folder, top, below };
}

/** The byte that a stretch consists of. */
async function byteAt(target: RequestTarget, offset: number, length = 70_000): Promise<number> {
  const bytes = new Uint8Array(length);
  await target.read(bytes, offset);
  assert.ok(
    bytes.every((byte) => byte === bytes[0]),
    'a read sees one image below, not two',
  );
  return bytes[0];
}

if (!isMainThread) {
  const { handle } = workerData as { handle: ImageHandle };
  const image = await attachImage(handle);
  parentPort!.on('message', (offset: number | undefined) => {
    if (offset === undefined)
      void image.close().then(() => {
        parentPort!.close();
      });
    else
      void byteAt(image, offset).then((byte) => {
        parentPort!.postMessage(byte);
      });
  });
  parentPort!.postMessage('ready');
} else {
  test('queues, maps and further queues follow; none below reads as zeroes', async (t) => {
    const { top, below } = await over(t);
    await using image = await openImage(top);
    await using queue = await image.openQueue();
    await image.write(new Uint8Array(65536).fill(9), 65536);
    for (const [name, expected] of [
      [below[1], 2],
      [below[2], 3],
      [undefined, 0],
      [below[0], 1],
    ] as const) {
      await image.replaceBacking(name, { format: 'raw' });
      assert.equal(image.backing?.filename, name);
      assert.equal(await byteAt(image, 3 * 65536), expected);
      assert.equal(await byteAt(queue, 3 * 65536), expected);
      assert.equal(await byteAt(image, 65536, 65536), 9);
      await using further = await image.openQueue();
      assert.equal(await byteAt(further, size - 70_000), expected);
      let last: Extent | undefined;
      for await (const extent of image.map()) last = extent;
      assert.equal(last?.data, name !== undefined);
      assert.equal(last.filename, name);
    }
  });

  test('what is written later is filled up from what lies below then', async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const { folder, top, below } = await over(t);
    {
      await using image = await openImage(top);
      await image.write(new Uint8Array(100).fill(9), 1000);
      await image.replaceBacking(below[1], { format: 'raw' });
      await image.write(new Uint8Array(100).fill(9), 65536 + 1000);
    }
    await runOk('qemu-img', ['check', '-q', top]);
    const flat = path.join(folder, 'flat.raw');
    await runOk('qemu-img', ['convert', '-O', 'raw', top, flat]);
    await using image = await openImage(flat, { format: 'raw', readOnly: true });
    assert.equal(await byteAt(image, 0, 1000), 1);
    assert.equal(await byteAt(image, 65536, 1000), 2);
    assert.equal(await byteAt(image, 65536 + 1100, 65536 - 1100), 2);
    // The image's own record of what it stands on is as before.
    assert.equal(await byteAt(image, 131072), 1);
  });

  test('a shorter image below ends where it ends', async (t) => {
    const { folder, top } = await over(t);
    const short = await disk(folder, 7, mebibyte);
    await using image = await openImage(top);
    await image.replaceBacking(short, { format: 'raw' });
    assert.equal(await byteAt(image, 0, mebibyte), 7);
    assert.equal(await byteAt(image, mebibyte, mebibyte), 0);
  });

  test('reads and writes under way see the one or the other', async (t) => {
    const { top, below } = await over(t);
    await using image = await openImage(top, { cacheSize: 1 });
    await using queue = await image.openQueue();
    let goesOn = true;
    const seen = new Set<number>();
    const lane = async (target: RequestTarget, nth: number): Promise<void> => {
      for (let round = 0; goesOn; round++) {
        seen.add(await byteAt(target, ((round * 7 + nth * 13) % 40) * 65536));
        if (round % 5 === 0) {
          await image.write(new Uint8Array(512).fill(8), 3 * mebibyte + ((nth * 64) % 1000) * 512);
        }
      }
    };
    const lanes = [0, 1, 2, 3].map((nth) => lane(nth % 2 === 0 ? image : queue, nth));
    for (let round = 0; round < 30; round++) {
      await image.replaceBacking(below[round % 3], { format: 'raw' });
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    goesOn = false;
    await Promise.all(lanes);
    assert.deepEqual([...seen].sort(), [1, 2, 3]);
  });

  test('other threads follow, those that attach by an older handle too', async (t) => {
    const { top, below } = await over(t);
    await using image = await openImage(top);
    const handle = image.handle();
    const start = async (): Promise<(offset: number | undefined) => Promise<number>> => {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { handle } });
      await new Promise((resolve) => worker.once('message', resolve));
      return (offset) =>
        new Promise((resolve, reject) => {
          worker.once('error', reject);
          worker.once(offset === undefined ? 'exit' : 'message', resolve);
          worker.postMessage(offset);
        });
    };
    const ask = await start();
    assert.equal(await ask(0), 1);
    await image.replaceBacking(below[1], { format: 'raw' });
    assert.equal(await ask(0), 2);
    const askToo = await start();
    assert.equal(await askToo(65536), 2);
    await image.replaceBacking(undefined);
    assert.equal(await ask(0), 0);
    await image.replaceBacking(below[2], { format: 'raw' });
    assert.equal(await askToo(0), 3);
    assert.equal(await ask(0), 3);
    await Promise.all([ask(undefined), askToo(undefined)]);
  });

  test('an image that is closed meanwhile leaves nothing open', async (t) => {
    const { folder, top } = await over(t);
    const below = path.join(folder, 'below.qcow2');
    await createImage(below, { format: 'qcow2', size });
    for (let round = 0; round < 10; round++) {
      const image = await openImage(top);
      const replacing = image.replaceBacking(below);
      if (round % 2 === 1) await new Promise(setImmediate);
      await image.close();
      await replacing.catch(() => undefined);
      // Nobody reads it any more, so that it can be written to.
      await (await openImage(below)).close();
    }
  });

  test('what cannot be put below is refused, and what was there stays', async (t) => {
    const { folder, top, below } = await over(t);
    await using image = await openImage(top);
    await assert.rejects(image.replaceBacking(path.join(folder, 'absent')), {
      code: 'ERR_COWHERD_NOT_FOUND',
      message: /^Could not open backing file: .*absent/,
    });
    await assert.rejects(image.replaceBacking(top), { code: /ERR_COWHERD_(BACKING|LOCKED)/ });
    await assert.rejects(image.replaceBacking('a'.repeat(70_000)), {
      code: 'ERR_COWHERD_INVALID_ARGUMENT',
      message: /name of the backing file is too long/,
    });
    const wrong = { formats: 'raw' } as object;
    await assert.rejects(image.replaceBacking(below[1], wrong), {
      code: 'ERR_COWHERD_INVALID_ARGUMENT',
    });
    assert.equal(await byteAt(image, 0), 1);
    await using raw = await openImage(below[1], { format: 'raw', readOnly: true });
    await assert.rejects(raw.replaceBacking(below[0]), {
      code: 'ERR_COWHERD_UNSUPPORTED',
      message: /images of the raw format stand on no others/,
    });
    const closed: Image = await openImage(top, { readOnly: true, forceShare: true });
    await closed.close();
    await assert.rejects(closed.replaceBacking(below[0]), { code: 'ERR_COWHERD_CLOSED' });
  });
}
