/** Streams that fill a disk: every byte in its place, back-pressure, durable at the end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import path from 'node:path';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { createImage, formatFile } from '../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../src/image/graph/open.js';
import { openPool } from '../../../src/image/threads/pool.js';
import { FaultFile, FaultPlan } from '../../../src/storage/filters/fault.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';
import { Slowness, slowDisk } from './slow-file.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 20);
const mib = 1024 * 1024;

test(`chunks of any lengths lie one after the other (seed ${seed})`, async () => {
  const size = 4 * mib;
  const chunks = fc.array(fc.oneof(fc.nat(5000), fc.nat(mib)), { maxLength: 12 });
  const property = fc.asyncProperty(chunks, fc.nat(size), async (lengths, place) => {
    const file = new MemoryFile('disk');
    await formatFile(file, { format: 'qcow2', size, clusterSize: 4096 });
    await using image = await openImageOn(file, { format: 'qcow2' });
    const total = lengths.reduce((sum, length) => sum + length, 0);
    const start = Math.min(place, Math.max(0, size - total));
    const model = Buffer.alloc(size, 9);
    await image.write(model, 0);
    let at = start;
    const stream = image.createWriteStream({ start });
    const content = function* (): Generator<Buffer> {
      for (const [index, length] of lengths.entries()) {
        const chunk = Buffer.alloc(Math.min(length, size - at), index + 10);
        model.set(chunk, at);
        at += chunk.length;
        yield chunk;
        // What was taken is the writer's again.
        chunk.fill(1);
      }
    };
    for (const chunk of content()) {
      await new Promise<void>((resolve, reject) => {
        stream.write(chunk, (error) => {
          if (error) reject(error);
          else resolve();
        });
      });
    }
    stream.end();
    await once(stream, 'finish');
    const found = Buffer.alloc(size);
    await image.read(found, 0);
    assert.ok(found.equals(model));
  });
  await fc.assert(property, { seed, numRuns: runs });
});

test('queues and pools have streams too, and QEMU reads what they wrote', async (t) => {
  const folder = await temporaryFolder(t);
  const place = path.join(folder, 'disk.qcow2');
  await createImage(place, { format: 'qcow2', size: '8M' });
  const content = Buffer.alloc(3 * mib + 77, 'streams');
  {
    await using image = await openImage(place);
    await using queue = await image.openQueue();
    await pipeline(Readable.from([content]), queue.createWriteStream({ start: 1000 }));
  }
  const pool = await openPool(place, { queues: 2 });
  await pipeline(Readable.from([content]), pool.createWriteStream({ start: 4 * mib }));
  await pool.close();
  assert.throws(() => pool.createWriteStream(), { code: 'ERR_COWHERD_CLOSED' });
  await using image = await openImage(place, { readOnly: true });
  for (const start of [1000, 4 * mib]) {
    const found = Buffer.alloc(content.length);
    await image.read(found, start);
    assert.ok(found.equals(content));
  }
  if (!needsTool(t, 'qemu-img')) return;
  assert.equal((await run('qemu-img', ['check', place])).code, 0);
});

test('at its finish what it took is durable', async () => {
  const slowness = new Slowness();
  await using image = await slowDisk(4 * mib, slowness);
  const stream = image.createWriteStream();
  stream.end(new Uint8Array(100).fill(1));
  await once(stream, 'finish');
  assert.deepEqual([slowness.writes, image.stats().total.requests.flush], [1, 1]);
});

test('several writes are under way, and what more comes waits', async () => {
  const slowness = new Slowness();
  await using image = await slowDisk(64 * mib, slowness);
  slowness.holds = true;
  const stream = image.createWriteStream();
  let taken = 0;
  const chunk = new Uint8Array(256 * 1024).fill(1);
  for (let index = 0; index < 200; index++) {
    stream.write(chunk, () => {
      taken += chunk.length;
    });
  }
  await sleep(50);
  assert.equal(taken, 5 * mib);
  assert.equal(slowness.waiting.length, 5);
  slowness.letGo();
  stream.end();
  await once(stream, 'finish');
  assert.equal(image.stats().total.bytesWritten, 50 * mib);
});

test('what would lie beyond the disk is refused in one line', async () => {
  await using image = await slowDisk(mib, new Slowness());
  const beyond = {
    code: 'ERR_COWHERD_OUT_OF_RANGE',
    message:
      "'disk': 2 bytes at guest offset 1048575 of a stream do not lie within the disk of 1048576 bytes",
  };
  const stream = image.createWriteStream({ start: mib - 2 });
  stream.write(new Uint8Array(1));
  stream.write(new Uint8Array(2));
  await assert.rejects(once(stream, 'finish'), beyond);
  assert.throws(() => image.createWriteStream({ start: mib + 1 }), {
    code: 'ERR_COWHERD_OUT_OF_RANGE',
  });
  const none = image.createWriteStream({ start: mib });
  none.end();
  await once(none, 'finish');
});

test('a failed write or flush is the stream’s error', async () => {
  for (const kind of ['write', 'flush'] as const) {
    const file = new MemoryFile('disk');
    await formatFile(file, { format: 'raw', size: 32 * mib });
    const plan = new FaultPlan({ kinds: [kind], nth: 1, errno: 'ENOSPC' });
    const image = await openImageOn(new FaultFile(file, plan), { format: 'raw' });
    const chunks = Array.from({ length: 20 }, () => new Uint8Array(mib).fill(1));
    const stream = image.createWriteStream();
    await assert.rejects(pipeline(Readable.from(chunks), stream), {
      code: 'ERR_COWHERD_NO_SPACE',
      filename: 'disk',
    });
    assert.equal(image.stats().total.inFlight, 0);
    await image.close();
  }
});

test('destroyed in the middle it leaves no request, and the image closes', async () => {
  const slowness = new Slowness();
  const image = await slowDisk(16 * mib, slowness);
  slowness.holds = true;
  const stopping = new AbortController();
  const stream = image.createWriteStream({ signal: stopping.signal });
  const failed = once(stream, 'error') as Promise<[unknown]>;
  const refused = new Promise((resolve) => {
    for (let index = 0; index < 8; index++) stream.write(new Uint8Array(mib).fill(1));
    stream.write(new Uint8Array(mib), resolve);
  });
  await sleep(20);
  assert.equal(slowness.waiting.length, 5);
  stopping.abort();
  await sleep(20);
  assert.equal(stream.closed, false, 'requests are still under way');
  slowness.letGo();
  const [error] = await failed;
  assert.equal((error as { code?: string }).code, 'ERR_COWHERD_ABORTED');
  assert.ok((await refused) instanceof Error);
  assert.equal(image.stats().total.inFlight, 0);
  await image.close();
});

test('what cannot be written is refused at the call', async () => {
  const image = await slowDisk(mib, new Slowness(), { readOnly: true });
  assert.throws(() => image.createWriteStream(), { code: 'ERR_COWHERD_READ_ONLY' });
  await image.close();
  assert.throws(() => image.createWriteStream(), { code: 'ERR_COWHERD_CLOSED' });
  await using written = await slowDisk(mib, new Slowness());
  assert.throws(() => written.createWriteStream({ end: 5 } as object), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
    message: "'disk': Invalid options: there is no option 'end'",
  });
});

test('from one image into another, by streams of the web', async () => {
  const slowness = new Slowness();
  await using source = await slowDisk(16 * mib, new Slowness());
  await using target = await slowDisk(32 * mib, slowness);
  const content = Buffer.alloc(16 * mib, 'web streams');
  await source.write(content, 0);
  slowness.holds = true;
  const readable = Readable.toWeb(source.createReadStream());
  const piped = readable.pipeTo(Writable.toWeb(target.createWriteStream({ start: 3 * mib })));
  await sleep(50);
  assert.ok(source.stats().total.bytesRead <= 14 * mib, 'the source waits for the target');
  slowness.letGo();
  await piped;
  const found = Buffer.alloc(16 * mib);
  await target.read(found, 3 * mib);
  assert.ok(found.equals(content));
});
