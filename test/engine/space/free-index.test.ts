import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FreeIndex, allocateFreeIndex } from '../../../src/engine/space/free-index.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

test('the index gives the first unit that no search has found full', (t) => {
  t.diagnostic(`seed ${seed}`);
  const step = fc.record({ full: fc.boolean(), at: fc.nat(5000), count: fc.nat(1500) });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.array(step), (units, steps) => {
      const index = new FreeIndex(allocateFreeIndex(units));
      const full = new Set<number>();
      for (const { full: isFull, at, count } of steps) {
        const end = Math.min(units, at + count);
        if (isFull) {
          for (let unit = at; unit < end; unit++) {
            index.setFull(unit);
            full.add(unit);
          }
        } else {
          index.setFree(at, at + count);
          for (let unit = at; unit <= at + count; unit++) full.delete(unit);
        }
        let expected = 0;
        while (expected < units && full.has(expected)) expected++;
        const { first } = index;
        if (expected < units) assert.equal(first, expected);
        else assert.ok(first >= units);
      }
    }),
    { seed },
  );
});
