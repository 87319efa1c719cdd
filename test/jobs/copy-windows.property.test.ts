/** Windows hold what their pieces held, each byte from where it lay, and lie as the target wants them. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PlainBytes } from '../../src/image/graph/data-copy.js';
import type { Piece } from '../../src/jobs/copy-pieces.js';
import { type Step, gatherWindows } from '../../src/jobs/copy-windows.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 300);

const unit = 512;

const stretches = fc.array(
  fc.record({
    kind: fc.constantFrom<Piece['kind']>('data', 'data', 'zero', 'skip'),
    units: fc.integer({ min: 1, max: 70 }),
    /** Whether it is known where data lie. */
    plain: fc.oneof({ weight: 9, arbitrary: fc.constant(true) }, fc.constant(false)),
    /** Whether data are zeroes that are copied like data. */
    isZero: fc.boolean(),
  }),
  { minLength: 1, maxLength: 20 },
);

/** A place that tells which guest offset it stands for. */
function placeOf(guestOffset: number): PlainBytes {
  return { offset: guestOffset + 7 * unit } as PlainBytes;
}

/** What a unit of the disk is: its kind, and the place it is copied from if that is known. */
interface Unit {
  readonly kind: Step['kind'];
  readonly place: number | undefined;
}

/** The units of pieces or steps, one after the other from each one's start. */
function* unitsOf(steps: readonly (Piece | Step)[]): Generator<[number, Unit]> {
  for (const { kind, start, length, segments = [] } of steps) {
    const places = segments.flatMap(({ bytes, length: count }) =>
      Array.from({ length: count / unit }, (_, index) => bytes && bytes.offset + index * unit),
    );
    assert.ok(places.length === 0 || places.length * unit === length, 'segments of another length');
    for (let at = 0; at < length; at += unit) {
      yield [start + at, { kind, place: places[at / unit] }];
    }
  }
}

test(`every byte comes from where it lay, in windows as they are wanted (seed ${seed})`, async () => {
  const rules = fc.record({
    windowBits: fc.integer({ min: 12, max: 15 }),
    portionBits: fc.integer({ min: 9, max: 15 }),
    granuleBits: fc.integer({ min: 9, max: 12 }),
  });
  await fc.assert(
    fc.asyncProperty(stretches, rules, async (list, { windowBits, portionBits, granuleBits }) => {
      const pieces: Piece[] = [];
      let size = 0;
      for (const { kind, units, plain, isZero } of list) {
        const length = units * unit;
        const bytes = isZero ? undefined : placeOf(size);
        const segments = kind === 'data' && plain ? [{ bytes, length }] : undefined;
        pieces.push({ kind, start: size, length, segments });
        size += length;
      }
      const windowBytes = 2 ** windowBits;
      const granule = 2 ** granuleBits;
      const given = Readable.from(pieces) as AsyncIterable<Piece>;
      const steps: Step[] = [];
      const portionBytes = 2 ** portionBits;
      const rule = { windowBytes, portionBytes, granule, size };
      for await (const step of gatherWindows(given, rule)) steps.push(step);
      let next = 0;
      for (const { kind, start, length, dataBytes, portions } of steps) {
        assert.ok(start >= next && length > 0, 'steps ascend');
        assert.equal(
          portions.reduce((sum, bytes) => sum + bytes, 0),
          dataBytes,
        );
        next = start + length;
        if (kind !== 'copy') continue;
        assert.equal(start % granule, 0);
        assert.ok(next % granule === 0 || next === size);
        const first = Math.floor(start / windowBytes);
        assert.equal(first, Math.floor((next - 1) / windowBytes), 'it lies within a multiple');
      }
      const wanted = new Map(unitsOf(pieces));
      for (const [offset, { kind, place }] of unitsOf(steps)) {
        const piece = wanted.get(offset);
        if (kind === 'copy') {
          assert.ok(piece?.kind === 'zero' || piece?.kind === 'data');
          assert.equal(place, piece.place);
        } else {
          assert.equal(kind, piece?.kind);
        }
        wanted.delete(offset);
      }
      for (const { kind } of wanted.values())
        assert.equal(kind, 'zero', 'only zeroes are left out');
      const dataBytes = steps.reduce((sum, step) => sum + step.dataBytes, 0);
      const expected = pieces.filter(({ kind }) => kind === 'data');
      assert.equal(
        dataBytes,
        expected.reduce((sum, { length }) => sum + length, 0),
      );
    }),
    { seed, numRuns },
  );
});
