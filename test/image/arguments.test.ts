/** What is handed to the library: buffers of every type, paths, options, and errors as promised. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { CowherdError } from '../../src/errors.js';
import type { BufferLike, ImageHandle, RequestTarget } from '../../src/image/api/image.js';
import type { ImageFormat } from '../../src/image/api/reports.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { openPool } from '../../src/image/threads/pool.js';
import { bench } from '../../src/jobs/bench.js';
import { compare } from '../../src/jobs/compare.js';
import { convert } from '../../src/jobs/convert.js';
import { needsTool, run, temporaryFolder } from '../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 40);
const diskBytes = 1 << 20;

async function newImage(t: TestContext, format: ImageFormat = 'qcow2'): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.img');
  await createImage(file, {
    format,
    size: diskBytes,
    ...(format === 'qcow2' && { clusterSize: 4096 }),
  });
  return file;
}

/** The constructors of another realm, such as a test of Jest has. */
const otherRealm = runInNewContext(
  '({ ArrayBuffer, SharedArrayBuffer, Uint8Array, Float64Array })',
) as Pick<typeof globalThis, 'ArrayBuffer' | 'SharedArrayBuffer' | 'Uint8Array' | 'Float64Array'>;

type Make = (memory: ArrayBufferLike, start: number, bytes: number) => BufferLike;

/** Every kind of view, and how many bytes an element of it has. */
const views: Readonly<Record<string, readonly [elementBytes: number, make: Make]>> = {
  Uint8Array: [1, (memory, start, bytes) => new Uint8Array(memory, start, bytes)],
  Uint8ClampedArray: [1, (memory, start, bytes) => new Uint8ClampedArray(memory, start, bytes)],
  Int16Array: [2, (memory, start, bytes) => new Int16Array(memory, start, bytes / 2)],
  Uint32Array: [4, (memory, start, bytes) => new Uint32Array(memory, start, bytes / 4)],
  Float64Array: [8, (memory, start, bytes) => new Float64Array(memory, start, bytes / 8)],
  BigUint64Array: [8, (memory, start, bytes) => new BigUint64Array(memory, start, bytes / 8)],
  'Uint8Array elsewhere': [
    1,
    (memory, start, bytes) => new otherRealm.Uint8Array(memory, start, bytes),
  ],
  'Float64Array elsewhere': [
    8,
    (memory, start, bytes) => new otherRealm.Float64Array(memory, start, bytes / 8),
  ],
  DataView: [1, (memory, start, bytes) => new DataView(memory, start, bytes)],
  Buffer: [1, (memory, start, bytes) => Buffer.from(memory as ArrayBuffer, start, bytes)],
};

const transfers = fc.array(
  fc.record({
    view: fc.constantFrom(...Object.keys(views)),
    shared: fc.boolean(),
    realm: fc.constantFrom(globalThis, otherRealm),
    /** In units of 8 bytes. */
    start: fc.integer({ min: 0, max: 64 }),
    length: fc.integer({ min: 1, max: 3000 }),
    at: fc.integer({ min: 0, max: diskBytes / 8 }),
    write: fc.boolean(),
    fill: fc.integer({ min: 1, max: 255 }),
  }),
  { minLength: 1, maxLength: 20 },
);

for (const kind of ['qcow2', 'raw', 'pool'] as const) {
  test(`a buffer counts by its bytes, whatever its elements: ${kind}`, async (t) => {
    t.diagnostic(`seed ${seed}`);
    const file = await newImage(t, kind === 'raw' ? 'raw' : 'qcow2');
    const format = kind === 'raw' ? 'raw' : 'qcow2';
    const image =
      kind === 'pool' ? await openPool(file, { queues: 2 }) : await openImage(file, { format });
    const target: Pick<RequestTarget, 'read' | 'write'> = image;
    const model = new Uint8Array(diskBytes);
    await fc.assert(
      fc.asyncProperty(transfers, async (drawn) => {
        for (const { view, shared, realm, start, length, at, write, fill } of drawn) {
          const [, make] = views[view];
          const bytes = length * 8;
          const offset = at * 8;
          const memory = shared
            ? new realm.SharedArrayBuffer(start * 8 + bytes + 16)
            : new realm.ArrayBuffer(start * 8 + bytes + 16);
          const whole = new Uint8Array(memory).fill(0xee);
          const part = whole.subarray(start * 8, start * 8 + bytes);
          if (write) part.fill(fill);
          const buffer = make(memory, start * 8, bytes);
          const request = write ? target.write(buffer, offset) : target.read(buffer, offset);
          if (offset + bytes > diskBytes) {
            await assert.rejects(request, { code: 'ERR_COWHERD_OUT_OF_RANGE' });
            continue;
          }
          await request;
          if (write) model.fill(fill, offset, offset + bytes);
          else assert.deepEqual(part, model.subarray(offset, offset + bytes));
          assert.ok(whole.subarray(start * 8 + bytes).every((byte) => byte === 0xee));
        }
        const all = new Uint8Array(diskBytes);
        await target.read(all, 0);
        assert.ok(Buffer.compare(all, model) === 0, 'the disk differs from the model');
      }),
      { seed, numRuns: runs, endOnFailure: true },
    );
    await image.close();
    if (kind === 'raw' || !needsTool(t, 'qemu-img')) return;
    assert.equal((await run('qemu-img', ['check', '-f', 'qcow2', file])).code, 0);
  });
}

test('what is no buffer is refused, and nothing is written', async (t) => {
  const file = await newImage(t);
  const detached = new Uint8Array(512);
  structuredClone(detached, { transfer: [detached.buffer] });
  const resizable = new Uint8Array(
    new (ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer)(4096, {
      maxByteLength: 8192,
    }),
  );
  const wrong = [
    ...['x'.repeat(512), new Array<number>(512).fill(1), { length: 512, byteLength: 512 }],
    ...[null, undefined, 5, detached, detached.buffer, resizable],
  ];
  for (const open of [() => openImage(file), () => openPool(file, { queues: 1 })]) {
    const image = await open();
    for (const buffer of wrong as BufferLike[]) {
      for (const request of [() => image.write(buffer, 0), () => image.read(buffer, 0)]) {
        await assert.rejects(request, { code: 'ERR_COWHERD_INVALID_ARGUMENT' });
      }
    }
    const good = new Uint8Array(512);
    for (const offset of [undefined, null, '0', -1, 1.5, NaN, 2 ** 53, {}] as unknown as number[]) {
      await assert.rejects(() => image.write(good, offset), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
      await assert.rejects(() => image.discard(0, offset), {
        code: 'ERR_COWHERD_OUT_OF_RANGE',
      });
    }
    assert.equal(image.stats().total.bytesWritten, 0);
    await image.close();
  }
});

test('a wrong option is refused at the call, by its name', async (t) => {
  const file = await newImage(t);
  const target = `${file}.target`;
  const wrong: readonly (readonly [
    name: string,
    call: (value: never) => Promise<unknown>,
    ...values: unknown[],
  ])[] = [
    ...(
      [
        ['cache', 'foo', 5],
        ['aio', 'foo'],
        ['backing', 'foo', true],
        ['detectZeroes', 'foo'],
        ['overlapCheck', 'foo'],
        ['cacheSize', -1, Infinity, NaN, '1M', 1.5],
        ['lazyRefcounts', 'yes', 1],
        ['readOnly', 'yes'],
        ['snapshot', 5, { ident: '1' }],
        ['onFinding', 'x'],
        [
          'throttle',
          5,
          { operationsPerSecond: 0 },
          { bytesPerSecond: NaN },
          { bytesBurst: -1 },
          { x: 1 },
        ],
        ['readonly', true],
        ['nonsense', 1],
      ] as const
    ).map(
      ([name, ...values]) =>
        [name, (value: never) => openImage(file, { [name]: value }), ...values] as const,
    ),
    ['queues', (value) => openPool(file, { queues: value }), 0, 256, 1.5, '2', undefined],
    ['affinity', (value) => openPool(file, { queues: 1, affinity: value }), 'foo'],
    ['parallel', (value) => convert(file, target, { parallel: value }), 0, -1, NaN, '4', 1.5],
    ['sparseSize', (value) => convert(file, target, { sparseSize: value }), -1, NaN, 0.5, 2 ** 40],
    ['rateLimit', (value) => convert(file, target, { rateLimit: value }), 0, -1, NaN],
    ['queues', (value) => convert(file, target, { queues: value }), 0, -1, 1000],
    ['to', (value) => convert(file, target, { to: value }), 'foo'],
    ['parallel', (value) => compare(file, file, { parallel: value }), NaN, 0],
    ['size', (value) => createImage(target, { format: 'raw', size: value }), 5n, true, {}],
    ['format', (value) => createImage(target, { format: value, size: 5 }), undefined],
  ];
  for (const [name, call, ...values] of wrong) {
    for (const value of values) {
      await assert.rejects(
        call(value as never),
        (error) =>
          error instanceof CowherdError &&
          error.code === 'ERR_COWHERD_INVALID_ARGUMENT' &&
          error.message.includes(name) &&
          !error.message.includes('\n'),
        `${name}: ${String(value)}`,
      );
    }
  }
  const image = await openImage(file);
  await assert.rejects(bench(image, { count: NaN, depth: 1, bufferBytes: 512 }), /count/);
  await assert.rejects(bench(image, { depth: 1, bufferBytes: 512 } as never), /count/);
  await assert.rejects(image.openQueue({ throttle: { bytesPerSecond: 0 } }), /bytesPerSecond/);
  await assert.rejects(image.check({ queues: 1e9 }), /queues/);
  assert.throws(() => image.map({ offset: -5 }), /offset/);
  await image.close();
});

test('an image is not opened for writing without locks', async (t) => {
  const file = await newImage(t);
  await assert.rejects(openImage(file, { forceShare: true }), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
    message: `Could not open '${file}': force-share=on can only be used with read-only images`,
  });
  await (await openImage(file, { forceShare: true, readOnly: true })).close();
});

test('memory of another realm is a buffer, and what no image gave is no handle', async (t) => {
  const file = await newImage(t);
  const image = await openImage(file);
  for (const memory of [new otherRealm.ArrayBuffer(512), new otherRealm.SharedArrayBuffer(512)]) {
    new Uint8Array(memory).fill(5);
    await image.write(memory, 512);
    await image.read(memory, 0);
    assert.ok(new Uint8Array(memory).every((byte) => byte === 0));
  }
  await image.close();
  for (const wrong of [undefined, null, 5, {}, 'handle']) {
    await assert.rejects(attachImage(wrong as ImageHandle), {
      code: 'ERR_COWHERD_INVALID_ARGUMENT',
    });
  }
});

test('paths may be URLs and buffers', async (t) => {
  const file = await newImage(t);
  const { href, protocol } = pathToFileURL(file);
  for (const name of [pathToFileURL(file), { href, protocol }, Buffer.from(file)]) {
    const image = await openImage(name, { readOnly: true });
    assert.equal(image.filename, file);
    await image.close();
  }
  await createImage(pathToFileURL(`${file}.new`), { format: 'raw', size: 512 });
  await convert([Buffer.from(file)], pathToFileURL(`${file}.raw`));
  assert.equal((await compare(pathToFileURL(file), Buffer.from(`${file}.raw`))).identical, true);
  rmSync(`${file}.new`);
  for (const name of [undefined, 5, `${file}\0x`, new URL('ftp://localhost/x')]) {
    await assert.rejects(openImage(name as string), { code: 'ERR_COWHERD_INVALID_ARGUMENT' });
  }
});

test('errors tell the system call, its number and its cause', async (t) => {
  const file = await newImage(t);
  await assert.rejects(openImage(`${file}.absent`), (error) => {
    assert.ok(error instanceof CowherdError);
    const { code, errno, syscall, cause } = error;
    assert.deepEqual([code, errno, syscall], ['ERR_COWHERD_NOT_FOUND', -2, 'open']);
    assert.equal((cause as NodeJS.ErrnoException).code, 'ENOENT');
    return true;
  });
  const image = await openImage(file);
  const signal = AbortSignal.abort();
  const aborted = { name: 'AbortError', code: 'ERR_COWHERD_ABORTED' };
  await assert.rejects(image.check({ signal }), aborted);
  await assert.rejects(image.map({ signal })[Symbol.asyncIterator]().next(), aborted);
  await assert.rejects(convert(file, `${file}.raw`, { signal }), aborted);
  await image.close();
  await assert.rejects(compare(file, file, { signal }), aborted);
  const closed = { code: 'ERR_COWHERD_CLOSED' };
  await assert.rejects(image.info(), closed);
  await assert.rejects(image.check(), closed);
  await assert.rejects(image.openQueue(), closed);
  assert.throws(() => image.map(), closed);
  assert.throws(() => image.handle(), closed);
});

test('a pool that fails to start tells why, and leaves nothing locked', async (t) => {
  const file = await newImage(t);
  const image = await openImage(file);
  await assert.rejects(openPool(file, { queues: 2 }), { code: 'ERR_COWHERD_LOCKED' });
  await image.close();
  for (let time = 0; time < 3; time++) {
    const pool = await openPool(file, { queues: 255, threads: 1 });
    await pool.write(new Uint8Array(512), 0);
    await pool.close();
  }
});
