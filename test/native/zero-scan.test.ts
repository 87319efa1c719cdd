/** Zero runs of random buffers, by the addon and without it, against the definition. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isZero, zeroRuns } from '../../src/native/zero-scan.js';

/** Buffers of zeroes with few other bytes, at any alignment. */
const sparse = fc
  .record({
    length: fc.integer({ min: 0, max: 5000 }),
    skip: fc.integer({ min: 0, max: 17 }),
    marks: fc.array(fc.nat(5000), { maxLength: 6 }),
  })
  .map(({ length, skip, marks }) => {
    const buffer = new Uint8Array(length + skip).subarray(skip);
    for (const mark of marks) if (mark < length) buffer[mark] = 1;
    return buffer;
  });

test('isZero finds any single byte', () => {
  for (const length of [0, 1, 63, 64, 65, 255, 256, 257, 1000, 65_537]) {
    const buffer = new Uint8Array(length);
    assert.ok(isZero(buffer));
    for (const at of [0, length >> 1, length - 1]) {
      if (at < 0 || at >= length) continue;
      buffer[at] = 0x80;
      assert.ok(!isZero(buffer), `byte ${at} of ${length}`);
      buffer[at] = 0;
    }
  }
});

test('isZero takes views on a SharedArrayBuffer', () => {
  const view = new Uint8Array(new SharedArrayBuffer(8192)).subarray(100, 5000);
  assert.ok(isZero(view));
  view[4000] = 1;
  assert.ok(!isZero(view));
});

test('runs alternate, cover the buffer, and are zero where they say', () => {
  fc.assert(
    fc.property(sparse, fc.constantFrom(1, 7, 64, 512, 4096, 10_000), (buffer, granularity) => {
      const runs = [...zeroRuns(buffer, granularity)];
      let at = 0;
      runs.forEach((length, index) => {
        assert.ok(length > 0 || index === 0);
        const block = buffer.subarray(at, at + length);
        if (index % 2 === 1) assert.ok(block.every((byte) => byte === 0));
        for (let start = 0; index % 2 === 0 && start < length; start += granularity) {
          assert.ok(block.subarray(start, start + granularity).some((byte) => byte !== 0));
        }
        at += length;
      });
      assert.equal(at, buffer.byteLength);
    }),
  );
});
