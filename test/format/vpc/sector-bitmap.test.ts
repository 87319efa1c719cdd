/** Runs of sectors in bitmaps, by looking at each bit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sectorRun } from '../../../src/format/vpc/sector-bitmap.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

test('a run ends where a bit differs, with what is asked for, or with the bitmap', () => {
  const byte = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(0, 255) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }) },
  );
  fc.assert(
    fc.property(
      fc.array(byte, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 0, max: 7 }),
      fc.integer({ min: 1, max: 120 }),
      fc.constantFrom('highest first' as const, 'lowest first' as const),
      (bytes, sector, most, order) => {
        const bits = bytes.flatMap((each) => {
          const lowestFirst = Array.from({ length: 8 }, (_, bit) => (each >> bit) & 1);
          return order === 'lowest first' ? lowestFirst : lowestFirst.reverse();
        });
        let sectors = 1;
        while (sectors < most && bits[sector + sectors] === bits[sector]) sectors++;
        const run = sectorRun(new DataView(Uint8Array.from(bytes).buffer), sector, most, order);
        assert.deepEqual(run, { isPresent: bits[sector] === 1, sectors });
      },
    ),
    { seed, numRuns: 1000 },
  );
});
