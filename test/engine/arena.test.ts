import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../src/engine/arena.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

/** Gives out runs of given lengths, with a gap after each; later ones are of one cluster. */
function reserveRuns(lengths: readonly number[]): {
  reserve: () => Promise<{ cluster: number; length: number; knownZero: boolean }>;
  reserved: Set<number>;
} {
  const reserved = new Set<number>();
  let next = 1;
  let run = 0;
  return {
    reserved,
    reserve: async () => {
      await Promise.resolve();
      const length = lengths[run++] ?? 1;
      const cluster = next;
      for (let each = 0; each < length; each++) reserved.add(cluster + each);
      next += length + 1;
      return { cluster, length, knownZero: false };
    },
  };
}

test('clusters that wait together for one short run get one each, and none that was not reserved', async (t) => {
  t.diagnostic(`seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 12 }),
      fc.integer({ min: 1, max: 20 }),
      async (lengths, takers) => {
        const { reserve, reserved } = reserveRuns(lengths);
        const arena = new Arena(reserve, 65536);
        const taken = await Promise.all(Array.from({ length: takers }, () => arena.obtain()));
        const clusters = taken.map(({ cluster }) => cluster);
        assert.equal(new Set(clusters).size, takers, 'a cluster was handed out twice');
        for (const cluster of clusters) assert.ok(reserved.has(cluster), `${cluster} is foreign`);
        const left = arena.drain().reduce((sum, { length }) => sum + length, 0);
        assert.equal(left + takers, reserved.size, 'a reserved cluster was lost');
      },
    ),
    { seed },
  );
});

test('taking more than is reserved is refused, and takes nothing', async () => {
  const { reserve } = reserveRuns([2]);
  const arena = new Arena(reserve, 65536);
  assert.throws(() => arena.take(1), /not reserved/);
  await arena.refill();
  assert.throws(() => arena.take(3), /not reserved/);
  assert.throws(() => arena.take(0), /not reserved/);
  assert.equal(arena.available, 2);
});
