/** What every storage file promises to who writes to it, within its length. */
import assert from 'node:assert/strict';
import { type Promises, code, contents, pattern, wrongOffsets } from './promise.js';

/** Of every file that is written to. */
export const writingPromises: Promises = {
  'what was written is read, and its neighbours are left alone': async (file, content) => {
    const expected = content.slice();
    for (const [offset, length] of [
      [131_072, 65_536],
      [12_345, 300_001],
      [5000, 1],
      [8000, 700],
    ]) {
      const data = pattern(length, offset + 1);
      expected.set(data, offset);
      await file.write(data, offset);
    }
    assert.deepEqual(await contents(file, 0, content.length), expected);
    assert.equal(await file.size(), content.length);
  },

  'unaligned writes side by side into one block all last': async (file) => {
    const writes = Array.from({ length: 64 }, (_, index) =>
      file.write(new Uint8Array(64).fill(index + 1), index * 64),
    );
    await Promise.all(writes);
    const result = await contents(file, 0, 4096);
    for (let index = 0; index < 4096; index += 1) assert.equal(result[index], (index >> 6) + 1);
  },

  'unaligned and aligned writes side by side all last': async (file, content) => {
    const expected = content.slice();
    const writes: Promise<void>[] = [];
    for (let block = 0; block < 60; block += 1) {
      for (const [at, length, fill] of [
        [50, 100, 1],
        [4096, 4096, 2],
        [8292, 5000, 3],
      ]) {
        const offset = block * 16_384 + at;
        expected.fill(fill, offset, offset + length);
        writes.push(file.write(new Uint8Array(length).fill(fill), offset));
      }
    }
    await Promise.all(writes);
    assert.deepEqual(await contents(file, 0, content.length), expected);
  },

  'a vector is written buffer after buffer': async (file, content) => {
    const buffers = [1, 0, 4096, 513, 70_000].map((length, index) => pattern(length, index));
    await file.writeVector(buffers, 777);
    const together = Buffer.concat(buffers);
    assert.deepEqual(Buffer.from(await contents(file, 777, together.length)), together);
    await file.writeVector([], 1000);
    assert.deepEqual(await contents(file, 0, 777), content.subarray(0, 777));
  },

  'a vector that is written may be longer than the system takes at once': async (file) => {
    const buffers = Array.from({ length: 3000 }, (_, index) => pattern(5, index));
    await file.writeVector(buffers, 3);
    assert.deepEqual(Buffer.from(await contents(file, 3, 15_000)), Buffer.concat(buffers));
  },

  'what is written may lie on a SharedArrayBuffer, also in its middle': async (file) => {
    const shared = new Uint8Array(new SharedArrayBuffer(16_384)).subarray(1000, 9000);
    shared.set(pattern(8000, 5));
    await file.write(shared, 4096);
    assert.deepEqual(await contents(file, 4096, 8000), pattern(8000, 5));
  },

  'an empty write does nothing': async (file, content) => {
    await file.write(new Uint8Array(0), 5000);
    await file.write(new Uint8Array(0), content.length + 5000);
    assert.equal(await file.size(), content.length);
  },

  'a write completes once, and not from within the call': async (file) => {
    let calls = 0;
    let isWithin = true;
    const error = await new Promise<Error | null>((resolve) => {
      file.submitWrite(pattern(4096, 6), 0, {
        complete: (failure) => {
          calls += 1;
          resolve(isWithin ? new Error('completed from within the call') : failure);
        },
      });
      isWithin = false;
    });
    assert.equal(error, null);
    await new Promise(setImmediate);
    assert.equal(calls, 1);
    assert.deepEqual(await contents(file, 0, 4096), pattern(4096, 6));
  },

  'thousands of writes may be submitted at once': async (file) => {
    const data = Array.from({ length: 1900 }, (_, index) => pattern(512, index + 3));
    await Promise.all(data.map((bytes, index) => file.write(bytes, index * 512)));
    const whole = Buffer.from(await contents(file, 0, data.length * 512));
    assert.deepEqual(whole, Buffer.concat(data));
  },

  'writeZeroes makes zeroes, and nothing else': async (file, content) => {
    const expected = content.slice();
    for (const unmap of [false, true]) {
      const offset = unmap ? 500_000 : 1001;
      await file.writeZeroes(offset, 150_003, unmap);
      expected.fill(0, offset, offset + 150_003);
    }
    await file.writeZeroes(10, 0, false);
    assert.deepEqual(await contents(file, 0, content.length), expected);
  },

  'discard keeps the size, and says whether it left zeroes': async (file, content) => {
    const expected = content.slice();
    if (await file.discard(65_536, 65_536)) {
      expected.fill(0, 65_536, 131_072);
      assert.deepEqual(await contents(file, 0, content.length), expected);
    }
    assert.deepEqual(await contents(file, 0, 65_536), content.subarray(0, 65_536));
    assert.equal(await file.size(), content.length);
  },

  'status follows every change made through the file': async (file) => {
    if (!file.limits.detectsHoles) return;
    const at = 1 << 19;
    const state = async (): Promise<boolean> => (await file.status(at, 65_536)).data;
    await file.write(pattern(65_536, 12), at);
    assert.equal(await state(), true);
    if (!(await file.discard(at, 65_536))) return;
    assert.equal(await state(), false);
    await file.writeVector([pattern(65_536, 12)], at);
    assert.equal(await state(), true);
    await file.writeZeroes(at, 65_536, true);
    assert.equal(await state(), false);
  },

  'queues share what is written': async (file) => {
    const queue = file.openQueue();
    await file.write(pattern(4096, 13), 0);
    assert.deepEqual(await contents(queue, 0, 4096), pattern(4096, 13));
    await queue.write(pattern(4096, 14), 0);
    await queue.close();
    assert.deepEqual(await contents(file, 0, 4096), pattern(4096, 14));
    await assert.rejects(queue.write(new Uint8Array(1), 0), code('ERR_COWHERD_CLOSED'));
  },

  'copyFrom copies, or says that it cannot': async (file, content) => {
    const copied = await file.copyFrom(file, 0, 1 << 19, 65_536);
    const expected = content.subarray(0, 65_536);
    if (copied) assert.deepEqual(await contents(file, 1 << 19, 65_536), expected);
  },

  'a data copier copies': async (file, content) => {
    const copier = file.dataCopier({ granule: 0, sparseSize: 0 });
    const segments = [{ file, offset: 4096, length: 65_536 }];
    const { parts, failure } = await copier.copy(segments, 1 << 19, 65_536);
    assert.equal(failure, undefined);
    assert.equal(
      parts.reduce((sum, part) => sum + part.length, 0),
      65_536,
    );
    const expected = content.subarray(4096, 4096 + 65_536);
    assert.deepEqual(await contents(file, 1 << 19, 65_536), expected);
  },

  'flush succeeds, also without anything to flush': async (file) => {
    await file.flush();
    await file.write(pattern(1000, 16), 0);
    await Promise.all([file.flush(), file.flush()]);
  },

  'a change that is out of range is refused': async (file) => {
    for (const offset of wrongOffsets) {
      const write = file.write(new Uint8Array(16), offset);
      await assert.rejects(write, code('ERR_COWHERD_OUT_OF_RANGE'));
      await assert.rejects(file.discard(offset, 16), code('ERR_COWHERD_OUT_OF_RANGE'));
    }
  },

  'close waits for writes under way': async (file) => {
    let written = false;
    const write = file.write(pattern(1 << 19, 17), 0).then(() => {
      written = true;
    });
    await file.close();
    assert.equal(written, true);
    await write;
    await assert.rejects(file.write(new Uint8Array(1), 0), code('ERR_COWHERD_CLOSED'));
  },
};
