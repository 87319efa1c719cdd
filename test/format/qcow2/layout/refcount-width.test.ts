/** Reference counts of every width, and the packed counts of a check, against plain arrays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PackedCounts } from '../../../../src/format/qcow2/refcount/packed-counts.js';
import { refcountWidth } from '../../../../src/format/qcow2/layout/refcount-width.js';

test('counts of every width keep to themselves', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 6 }),
      fc.array(fc.tuple(fc.nat(63), fc.double({ min: 0, max: 1, noNaN: true })), { maxLength: 80 }),
      (order, changes) => {
        const width = refcountWidth(order);
        const most = Math.min(2 ** (2 ** order) - 1, Number.MAX_SAFE_INTEGER);
        const view = new DataView(new ArrayBuffer(3 + 64 * 8));
        const model = new Array<number>(64).fill(0);
        for (const [index, fraction] of changes) {
          model[index] = Math.floor(fraction * most);
          width.set(view, 3, index, model[index]);
        }
        model.forEach((value, index) => {
          assert.equal(width.get(view, 3, index), value);
        });
      },
    ),
  );
});

test('widths below a byte are packed from the least significant bit', () => {
  const view = new DataView(new ArrayBuffer(1));
  refcountWidth(0).set(view, 0, 3, 1);
  assert.equal(view.getUint8(0), 0b1000);
  refcountWidth(1).set(view, 0, 3, 2);
  assert.equal(view.getUint8(0), 0b1000_1000);
});

test('packed counts agree with an array', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(99), fc.integer({ min: 1, max: 40 })), { maxLength: 60 }),
      fc.integer({ min: 1, max: 100 }),
      (runs, length) => {
        const counts = new PackedCounts(length);
        const other = new PackedCounts(length);
        const model = new Array<number>(140).fill(0);
        for (const [first, count] of runs) {
          counts.increment(first, count);
          for (let index = first; index < first + count; index++) model[index]++;
        }
        model.forEach((count, cluster) => {
          assert.equal(counts.get(cluster), count);
        });
        assert.deepEqual(
          [...counts.differences(other)],
          model.flatMap((count, cluster) => (count > 0 ? [cluster] : [])),
        );
        assert.equal(
          counts.highest(),
          model.findLastIndex((count) => count > 0),
        );
        for (let first = 0; first < 140; first++) {
          const used = model.findIndex((count, cluster) => cluster >= first && count > 0);
          assert.equal(counts.nextUsed(first, 140), used < 0 ? 140 : used);
          const free = model.findIndex((count, cluster) => cluster >= first && count === 0);
          assert.equal(counts.nextFree(first), free < 0 ? 140 : free);
        }
        for (let first = 0; first + 5 <= 140; first++) {
          const ones = model.slice(first, first + 5).every((count) => count === 1);
          assert.equal(counts.areAllOne(first, 5), ones);
        }
      },
    ),
  );
});
