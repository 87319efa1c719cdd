/** Streams that read a disk: its bytes in order, with several requests, and an end that leaves nothing. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer as bytesOf } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import type { CowherdError } from '../../../src/errors.js';
import { createImage, formatFile } from '../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../src/image/graph/open.js';
import { openPool } from '../../../src/image/threads/pool.js';
import { FaultFile, FaultPlan } from '../../../src/storage/filters/fault.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { temporaryFolder } from '../../support/tools.js';
import { Slowness, slowDisk } from './slow-file.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);
const mib = 1024 * 1024;

test(`a stream is the bytes of its range (seed ${seed})`, async () => {
  const size = 3 * mib + 512;
  const place = fc.integer({ min: 0, max: size - 1 });
  const writes = fc.array(fc.tuple(place, fc.integer({ min: 1, max: 200_000 })), { maxLength: 8 });
  const property = fc.asyncProperty(
    fc.constantFrom('raw', 'qcow2'),
    writes,
    fc.tuple(place, place),
    fc.oneof(fc.constant(undefined), fc.integer({ min: 20_000, max: 6 * mib })),
    fc.boolean(),
    async (format, written, [one, other], highWaterMark, readOnly) => {
      const content = new MemoryContent();
      await formatFile(new MemoryFile('disk', { content }), { format, size, clusterSize: 4096 });
      const model = Buffer.alloc(size);
      await using image = await openImageOn(new MemoryFile('disk', { content }), { format });
      for (const [index, [at, wanted]] of written.entries()) {
        const length = Math.min(wanted, size - at);
        model.fill(index + 1, at, at + length);
        await image.write(Buffer.alloc(length, index + 1), at);
      }
      await image.flush();
      const start = Math.min(one, other);
      const end = Math.max(one, other);
      await using again = await openImageOn(new MemoryFile('disk', { content, readOnly }), {
        format,
        readOnly,
      });
      const part = await bytesOf(again.createReadStream({ start, end, highWaterMark }));
      assert.ok(part.equals(model.subarray(start, end + 1)));
      const rest = await bytesOf(again.createReadStream({ start }));
      assert.ok(rest.equals(model.subarray(start)));
    },
  );
  await fc.assert(property, { seed, numRuns: runs });
});

test('queues and pools have streams too', async (t) => {
  const place = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(place, { format: 'qcow2', size: '5M' });
  const expected = Buffer.alloc(5 * mib);
  expected.fill('streams', mib, 3 * mib);
  {
    await using image = await openImage(place);
    await image.write(expected.subarray(mib, 3 * mib), mib);
    await using queue = await image.openQueue();
    assert.ok((await bytesOf(queue.createReadStream())).equals(expected));
  }
  for (const readOnly of [false, true]) {
    await using pool = await openPool(place, { queues: 2, readOnly });
    const part = await bytesOf(pool.createReadStream({ start: 1000, end: 4 * mib }));
    assert.ok(part.equals(expected.subarray(1000, 4 * mib + 1)));
    await pool.close();
    assert.throws(() => pool.createReadStream(), { code: 'ERR_COWHERD_CLOSED' });
  }
});

test('zeroes that an image knows of are not read', async () => {
  for (const format of ['raw', 'qcow2']) {
    const content = new MemoryContent();
    const file = new MemoryFile('disk', { content });
    await formatFile(file, { format, size: 64 * mib });
    await using image = await openImageOn(new MemoryFile('disk', { content, readOnly: true }), {
      format,
      readOnly: true,
    });
    let bytes = 0;
    for await (const piece of image.createReadStream()) {
      assert.ok((piece as Buffer).every((byte) => byte === 0));
      bytes += (piece as Buffer).length;
    }
    assert.equal(bytes, 64 * mib);
    // The first sector of a new raw file is written.
    assert.ok(image.stats().total.requests.read <= 1, format);
  }
});

test('several requests are under way, and no more than the reader lets them', async () => {
  const slowness = new Slowness();
  await using image = await slowDisk(64 * mib, slowness);
  await image.write(new Uint8Array(64 * mib).fill(1), 0);
  slowness.holds = true;
  const stream = image.createReadStream({ highWaterMark: 2 * mib });
  await sleep(20);
  assert.deepEqual(slowness.waiting, [], 'nobody has asked yet');
  stream.once('readable', () => undefined);
  await sleep(20);
  assert.equal(slowness.waiting.length, 4);
  slowness.letGo();
  await sleep(50);
  // What waits in the stream has made room for as much again.
  assert.ok(slowness.reads <= 6, `${slowness.reads} reads`);
  assert.ok(image.stats().total.bytesRead <= 3 * mib);
  stream.destroy();
  await once(stream, 'close');
});

test('destroyed in the middle it leaves no request, and the image closes', async () => {
  const slowness = new Slowness();
  const image = await slowDisk(16 * mib, slowness);
  await image.write(new Uint8Array(16 * mib).fill(1), 0);
  const stream = image.createReadStream();
  await new Promise((resolve) => {
    stream.on('data', (piece: Buffer) => {
      assert.equal(piece.length, mib);
      slowness.holds = true;
      resolve(undefined);
    });
  });
  await sleep(20);
  assert.ok(slowness.waiting.length > 0);
  let closed = false;
  stream.once('close', () => {
    closed = true;
  });
  stream.destroy();
  await sleep(20);
  assert.equal(closed, false, 'requests are still under way');
  slowness.letGo();
  if (!stream.closed) await once(stream, 'close');
  assert.equal(image.stats().total.inFlight, 0);
  await image.close();
});

test('a signal ends it with an error of this package', async () => {
  await using image = await slowDisk(16 * mib, new Slowness());
  await image.write(new Uint8Array(16 * mib).fill(1), 0);
  const aborted = { name: 'AbortError', code: 'ERR_COWHERD_ABORTED', filename: 'disk' };
  const stopping = new AbortController();
  await assert.rejects(async () => {
    for await (const piece of image.createReadStream({ signal: stopping.signal })) {
      assert.ok(piece);
      stopping.abort();
    }
  }, aborted);
  await assert.rejects(bytesOf(image.createReadStream({ signal: AbortSignal.abort() })), aborted);
});

test('a failed read is the stream’s error', async () => {
  const file = new MemoryFile('disk');
  await formatFile(file, { format: 'raw', size: 8 * mib });
  await file.write(new Uint8Array(8 * mib).fill(1), 0);
  const plan = new FaultPlan({ kinds: ['read'], nth: 3 });
  await using image = await openImageOn(new FaultFile(file, plan), { format: 'raw' });
  await assert.rejects(bytesOf(image.createReadStream()), {
    code: 'ERR_COWHERD_IO',
    filename: 'disk',
  });
});

test('what is wrong is refused at the call, in one line', async () => {
  const image = await slowDisk(mib, new Slowness());
  const refusal = (code: CowherdError['code'], message: RegExp) => (error: unknown) => {
    const { code: found, message: line } = error as CowherdError;
    assert.deepEqual([found, line.includes('\n')], [code, false]);
    assert.match(line, message);
    return true;
  };
  for (const [options, message] of [
    [{ begin: 5 }, /no option 'begin'/],
    [{ start: -1 }, /start is -1/],
    [{ end: 1.5 }, /end is 1.5/],
    [{ highWaterMark: 0 }, /highWaterMark is 0/],
    [{ signal: 5 }, /signal is 5/],
  ] as const) {
    assert.throws(
      () => image.createReadStream(options as object),
      refusal('ERR_COWHERD_INVALID_ARGUMENT', message),
    );
  }
  for (const range of [{ start: mib + 1 }, { end: mib }, { start: 10, end: 9 }]) {
    assert.throws(
      () => image.createReadStream(range),
      refusal('ERR_COWHERD_OUT_OF_RANGE', /'disk': bytes \d+ to \S+ do not lie/),
    );
  }
  assert.equal((await bytesOf(image.createReadStream({ start: mib }))).length, 0);
  assert.equal((await bytesOf(image.createReadStream({ start: mib - 1, end: mib - 1 }))).length, 1);
  await image.close();
  assert.throws(() => image.createReadStream(), { code: 'ERR_COWHERD_CLOSED' });
});

test('web streams made of it are not read ahead without an end', async () => {
  const slowness = new Slowness();
  await using image = await slowDisk(64 * mib, slowness);
  await image.write(new Uint8Array(64 * mib).fill(1), 0);
  const before = image.stats().total.bytesRead;
  const reader = Readable.toWeb(image.createReadStream({ end: 48 * mib - 1 })).getReader();
  const first = (await reader.read()) as { readonly value?: Uint8Array };
  assert.equal(first.value?.length, mib);
  await sleep(50);
  assert.ok(image.stats().total.bytesRead - before <= 8 * mib);
  let bytes = mib;
  for (;;) {
    const { done, value } = (await reader.read()) as { done: boolean; value?: Uint8Array };
    if (done) break;
    bytes += value!.length;
  }
  assert.equal(bytes, 48 * mib);
});
