/** Buffers are lent to whoever asked first, and never more of them than agreed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { BufferPool } from '../../src/engine/buffer-pool.js';

const use = (): string => 'a test';

test('buffers are used again, and lent in the order of asking', async () => {
  const pool = new BufferPool(512, 2);
  const first = await pool.lend(use);
  const second = await pool.lend(use);
  assert.equal(first.length, 512);
  assert.equal(pool.isAllLent, true);
  const lent: [string, Uint8Array][] = [];
  for (const name of ['third', 'fourth']) {
    void pool.lend(use).then((buffer) => lent.push([name, buffer]));
  }
  await setImmediate();
  assert.equal(lent.length, 0);
  assert.equal(pool.isAwaited, true);
  pool.giveBack(second);
  await setImmediate();
  pool.giveBack(first);
  await setImmediate();
  const [names, buffers] = [lent.map(([name]) => name), lent.map(([, buffer]) => buffer)];
  assert.deepEqual(names, ['third', 'fourth']);
  assert.ok(buffers[0] === second && buffers[1] === first);
  assert.equal(pool.isAwaited, false);
  assert.equal(pool.isAllLent, true);
  pool.giveBack(first);
  assert.equal(pool.isAllLent, false);
});

test('nobody has a buffer that somebody else has, and everybody gets one', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.nat(3), { maxLength: 40 }),
      async (most, pauses) => {
        const pool = new BufferPool(8, most);
        const used = new Set<Uint8Array>();
        const all = new Set<Uint8Array>();
        await Promise.all(
          pauses.map(async (pause) => {
            for (let turn = 0; turn < pause; turn += 1) await setImmediate();
            const buffer = await pool.lend(use);
            assert.ok(!used.has(buffer));
            used.add(buffer);
            all.add(buffer);
            for (let turn = 0; turn < pause; turn += 1) await setImmediate();
            used.delete(buffer);
            pool.giveBack(buffer);
          }),
        );
        assert.ok(all.size <= most);
        assert.equal(pool.isAwaited, false);
      },
    ),
    { numRuns: 200 },
  );
});
