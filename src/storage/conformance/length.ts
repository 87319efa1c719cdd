/** What storage files promise of their lengths: those that grow and shrink, and those that do not. */
import assert from 'node:assert/strict';
import { type Promises, contents, pattern } from './promise.js';

/** Of files whose length changes; each begins empty. */
export const resizingPromises: Promises = {
  'a new file is empty': async (file) => {
    assert.equal(await file.size(), 0);
    assert.deepEqual(await contents(file, 0, 10), new Uint8Array(10));
  },

  'a write beyond the end grows the file, with zeroes in between': async (file) => {
    const data = pattern(300_000, 1);
    await file.write(data, 12_345);
    assert.equal(await file.size(), 312_345);
    assert.deepEqual(await contents(file, 12_345, 300_000), data);
    assert.deepEqual(await contents(file, 0, 12_345), new Uint8Array(12_345));
    await file.writeVector([pattern(100, 2), pattern(5, 3)], 400_000);
    assert.equal(await file.size(), 400_105);
  },

  'empty writes beyond the end do not grow it': async (file) => {
    await file.write(new Uint8Array(0), 5000);
    await file.writeVector([], 1 << 30);
    assert.equal(await file.size(), 0);
  },

  'truncate shrinks, grows, and grown bytes are zero': async (file) => {
    await file.write(pattern(10_000, 7), 0);
    await file.truncate(3000);
    assert.equal(await file.size(), 3000);
    await file.truncate(10_000);
    assert.deepEqual((await contents(file, 0, 10_000)).subarray(3000), new Uint8Array(7000));
    assert.deepEqual(await contents(file, 0, 3000), pattern(10_000, 7).subarray(0, 3000));
  },

  'a file grows with its blocks reserved, and what is added reads as zeroes': async (file) => {
    await file.write(pattern(5000, 9), 0);
    await file.truncate(1 << 20, true);
    assert.equal(await file.size(), 1 << 20);
    assert.deepEqual(
      (await contents(file, 0, 1 << 20)).subarray(5000),
      new Uint8Array((1 << 20) - 5000),
    );
    await file.write(pattern(5000, 10), 700_001);
    assert.deepEqual(await contents(file, 700_001, 5000), pattern(5000, 10));
    await file.truncate(3000, true);
    assert.equal(await file.size(), 3000);
    assert.deepEqual(await contents(file, 0, 3000), pattern(5000, 9).subarray(0, 3000));
  },

  'writeZeroes beyond the end grows the file': async (file) => {
    for (const unmap of [false, true]) {
      const base = unmap ? 1 << 20 : 0;
      await file.write(pattern(100_000, 8), base);
      await file.writeZeroes(base + 90_000, 100_001, unmap);
      assert.equal(await file.size(), base + 190_001);
      assert.deepEqual(await contents(file, base + 90_000, 100_001), new Uint8Array(100_001));
      const before = pattern(100_000, 8).subarray(0, 90_000);
      assert.deepEqual(await contents(file, base, 90_000), before);
    }
  },

  'discard beyond the end does not grow the file': async (file) => {
    await file.write(pattern(200_000, 9), 0);
    await file.discard(150_000, 1_000_000);
    assert.equal(await file.size(), 200_000);
  },

  'allocate grows the file and keeps its data': async (file) => {
    await file.write(pattern(5000, 10), 0);
    await file.allocate(0, 100_000, 'falloc');
    assert.equal(await file.size(), 100_000);
    assert.deepEqual(await contents(file, 0, 5000), pattern(5000, 10));
    await file.allocate(100_000, 33_333, 'full');
    assert.equal(await file.size(), 133_333);
    assert.deepEqual(await contents(file, 5000, 128_333), new Uint8Array(128_333));
  },

  'what a file has grown by is a hole, where holes are known': async (file) => {
    await file.truncate(4 << 20);
    await file.write(pattern(65_536, 11), 1 << 20);
    if (file.limits.detectsHoles) {
      assert.equal((await file.status(0, 1)).data, false);
      const before = await file.status(1 << 19, 1 << 20);
      assert.deepEqual(before, { data: false, length: 1 << 19 });
    }
    assert.deepEqual(await file.status(1 << 20, 512), { data: true, length: 512 });
  },
};

/** Of files that are written to and whose length is fixed, as that of a device. */
export const fixedPromises: Promises = {
  'what would lie beyond a fixed end is refused, and changes nothing': async (file, content) => {
    const { length } = content;
    const isOurs = (error: unknown): boolean =>
      (error as { readonly code?: string }).code?.startsWith('ERR_COWHERD_') === true;
    await assert.rejects(file.write(new Uint8Array(1024), length - 512), isOurs);
    await assert.rejects(file.writeVector([new Uint8Array(512)], length), isOurs);
    await assert.rejects(file.writeZeroes(length - 512, 1024, false), isOurs);
    await assert.rejects(file.truncate(length + 512), isOurs);
    assert.equal(await file.size(), length);
    assert.deepEqual(await contents(file, 0, length), content);
  },
};
