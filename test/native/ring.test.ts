/** A ring's manners: the event loop gets its turns, and the process ends when work does. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { addon } from '../../src/native/addon.js';
import { acquireRing, releaseRing } from '../../src/native/thread-rings.js';
import { openStorageFile } from '../../src/storage/registry.js';
import { diskFolder } from '../storage/backends.js';
import { projectFolder, run } from '../support/tools.js';

const skip = addon === undefined ? 'needs the addon' : false;

// Under a sanitizer everything is late.
const slow = process.env['COWHERD_SANITIZER'] === undefined ? skip : 'slow on purpose';

for (const depth of [1, 64]) {
  test(`endless cached reads at depth ${depth} leave timers their time`, { skip: slow }, async (t) => {
    const filename = path.join(diskFolder(t), 'file');
    writeFileSync(filename, new Uint8Array(1 << 20));
    const file = await openStorageFile(filename);
    let running = true;
    let reads = 0;
    const reader = async (): Promise<void> => {
      const buffer = new Uint8Array(4096);
      while (running) {
        await file.read(buffer, (reads % 256) * 4096);
        reads += 1;
      }
    };
    const readers = Array.from({ length: depth }, reader);
    const late: number[] = [];
    for (let round = 0; round < 20; round += 1) {
      const start = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 1));
      late.push(performance.now() - start);
    }
    running = false;
    await Promise.all(readers);
    await file.close();
    late.sort((left, right) => left - right);
    assert.ok(late[10] < 20, `half the timers were later than ${late[10]} ms`);
    assert.ok(reads > 100);
  });
}

// fast-check prints the seed of a failure.
test('bursts of cached reads end, each with its own bytes', { skip }, async (t) => {
  const filename = path.join(diskFolder(t), 'file');
  const blocks = 512;
  const blockBytes = 4096;
  const content = new Uint8Array(blocks * blockBytes);
  const words = new Uint32Array(content.buffer);
  words.forEach((_, index) => (words[index] = Math.imul(index, 2_654_435_761)));
  writeFileSync(filename, content);
  const place = fc.record({
    block: fc.nat(blocks + 1),
    within: fc.nat(blockBytes - 1),
    length: fc.integer({ min: 1, max: 2 * blockBytes }),
    vector: fc.boolean(),
  });
  // More than a ring has slots; about as many as are shared with the helper; few.
  const burst = fc.oneof(
    ...[3, 20, 80, 1500].map((most) => fc.array(place, { minLength: 1, maxLength: most, size: 'max' })),
  );
  const file = await openStorageFile(filename);
  await fc.assert(
    fc.asyncProperty(fc.array(burst, { minLength: 1, maxLength: 6 }), async (bursts) => {
      const running = bursts.map(async (reads) => {
        const buffers = reads.map(({ length }) => new Uint8Array(length).fill(0xee));
        await Promise.all(
          reads.map(({ block, within, vector }, index) => {
            const buffer = buffers[index];
            const offset = block * blockBytes + within;
            if (!vector) return file.read(buffer, offset);
            const middle = buffer.length >> 1;
            return file.readVector([buffer.subarray(0, middle), buffer.subarray(middle)], offset);
          }),
        );
        for (const [index, { block, within, length }] of reads.entries()) {
          const expected = new Uint8Array(length);
          const offset = block * blockBytes + within;
          expected.set(content.subarray(offset, offset + length));
          assert.deepEqual(buffers[index], expected);
        }
      });
      await Promise.all(running);
    }),
    { numRuns: 60 },
  );
  await file.close();
});

test('a request keeps the process alive until it ends, an idle ring does not', { skip }, async (t) => {
  const filename = path.join(diskFolder(t), 'file');
  writeFileSync(filename, new Uint8Array(1 << 20).fill(5));
  const module = path.join(projectFolder, 'dist/src/storage/registry.js');
  for (const aio of ['auto', 'io_uring', 'threads']) {
    const script = `
      const { openStorageFile } = await import(${JSON.stringify(module)});
      const file = await openStorageFile(${JSON.stringify(filename)}, { aio: '${aio}', cache: 'none' });
      const buffer = new Uint8Array(512);
      file.read(buffer, 0).then(() => file.write(buffer, 4096)).then(() => file.flush())
        .then(() => { process.stdout.write('done ' + buffer[0]); });`;
    const result = await run(process.execPath, ['--input-type=module', '-e', script], {
      timeoutMs: 20_000,
    });
    assert.deepEqual(result, { stdout: 'done 5', stderr: '', code: 0 });
  }
});

test('rings are shared by engine, and come back after the last use', { skip }, () => {
  const first = acquireRing('threads');
  const second = acquireRing('threads');
  assert.equal(first, second);
  assert.ok(typeof first !== 'number');
  assert.equal(first.usesUring, false);
  releaseRing(first);
  releaseRing(first);
  const third = acquireRing('threads');
  assert.notEqual(third, first);
  if (typeof third !== 'number') releaseRing(third);
});
