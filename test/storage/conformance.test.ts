/** What every storage backend promises, in every mode. */
import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { CowherdErrorCode } from '../../src/errors.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { backends, createOrSkip } from './backends.js';

/** Bytes that depend on their place, so that misplaced ones show. */
function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8) + seed) & 0xff);
}

async function contents(file: StorageFile, offset: number, length: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(length).fill(0xee);
  await file.read(buffer, offset);
  return buffer;
}

function code(expected: CowherdErrorCode): { code: CowherdErrorCode } {
  return { code: expected };
}

const promises: Readonly<Record<string, (file: StorageFile, t: TestContext) => Promise<void>>> = {
  'a new file is empty': async (file) => {
    assert.equal(await file.size(), 0);
    assert.deepEqual(await contents(file, 0, 10), new Uint8Array(10));
  },

  'what was written is read': async (file) => {
    const data = pattern(300_000, 1);
    await file.write(data, 12_345);
    assert.equal(await file.size(), 312_345);
    assert.deepEqual(await contents(file, 12_345, 300_000), data);
    assert.deepEqual(await contents(file, 0, 12_345), new Uint8Array(12_345));
  },

  'aligned transfers of aligned buffers': async (file) => {
    const data = pattern(65_536, 2);
    await file.write(data, 131_072);
    assert.deepEqual(await contents(file, 131_072, 65_536), data);
    assert.equal(await file.size(), 196_608);
  },

  'an unaligned write leaves its neighbours alone': async (file) => {
    const before = pattern(20_000, 3);
    await file.write(before, 0);
    await file.write(new Uint8Array(1).fill(0xaa), 5000);
    await file.write(new Uint8Array(700).fill(0xbb), 8000);
    before[5000] = 0xaa;
    before.fill(0xbb, 8000, 8700);
    assert.deepEqual(await contents(file, 0, 20_000), before);
    assert.equal(await file.size(), 20_000);
  },

  'unaligned writes side by side into one block all last': async (file) => {
    await file.truncate(4096);
    const writes = Array.from({ length: 64 }, (_, index) =>
      file.write(new Uint8Array(64).fill(index + 1), index * 64),
    );
    await Promise.all(writes);
    const result = await contents(file, 0, 4096);
    for (let index = 0; index < 4096; index += 1) assert.equal(result[index], (index >> 6) + 1);
  },

  'unaligned and aligned writes side by side all last': async (file) => {
    await file.truncate(1 << 20);
    const writes: Promise<void>[] = [];
    for (let block = 0; block < 64; block += 1) {
      const start = block * 16_384;
      writes.push(file.write(new Uint8Array(100).fill(1), start + 50));
      writes.push(file.write(new Uint8Array(4096).fill(2), start + 4096));
      writes.push(file.write(new Uint8Array(5000).fill(3), start + 8192 + 100));
    }
    await Promise.all(writes);
    const result = await contents(file, 0, 1 << 20);
    for (let block = 0; block < 64; block += 1) {
      const start = block * 16_384;
      assert.deepEqual(
        [49, 50, 149, 150, 4095, 4096, 8191, 8192, 8291, 8292, 13_291, 13_292].map(
          (at) => result[start + at],
        ),
        [0, 1, 1, 0, 0, 2, 2, 0, 0, 3, 3, 0],
      );
    }
  },

  'reads beyond the end yield zeroes': async (file) => {
    await file.write(pattern(1000, 4), 0);
    const read = await contents(file, 500, 9000);
    assert.deepEqual(read.subarray(0, 500), pattern(1000, 4).subarray(500));
    assert.deepEqual(read.subarray(500), new Uint8Array(8500));
    assert.deepEqual(await contents(file, 1_000_000, 4096), new Uint8Array(4096));
    assert.equal(await file.size(), 1000);
  },

  'vectors transfer buffer after buffer': async (file) => {
    const buffers = [1, 0, 4096, 513, 70_000].map((length, index) => pattern(length, index));
    await file.writeVector(buffers, 777);
    const together = Buffer.concat(buffers);
    assert.deepEqual(Buffer.from(await contents(file, 777, together.length)), together);
    const parts = [3, 4096, together.length - 4099].map((length) => new Uint8Array(length));
    await file.readVector(parts, 777);
    assert.deepEqual(Buffer.concat(parts), together);
    await file.readVector([], 0);
    await file.writeVector([], 1 << 30);
    assert.equal(await file.size(), 777 + together.length);
  },

  'a vector may be longer than the system takes at once': async (file) => {
    const buffers = Array.from({ length: 3000 }, (_, index) => pattern(5, index));
    await file.writeVector(buffers, 0);
    assert.deepEqual(Buffer.from(await contents(file, 0, 15_000)), Buffer.concat(buffers));
    const parts = Array.from({ length: 3000 }, () => new Uint8Array(6));
    await file.readVector(parts, 0);
    assert.deepEqual(Buffer.concat(parts).subarray(0, 15_000), Buffer.concat(buffers));
  },

  'buffers may lie on a SharedArrayBuffer, also in its middle': async (file) => {
    const shared = new Uint8Array(new SharedArrayBuffer(16_384)).subarray(1000, 9000);
    shared.set(pattern(8000, 5));
    await file.write(shared, 4096);
    shared.fill(0);
    await file.read(shared, 4096);
    assert.deepEqual(Uint8Array.from(shared), pattern(8000, 5));
  },

  'empty transfers do nothing': async (file) => {
    await file.write(new Uint8Array(0), 5000);
    await file.read(new Uint8Array(0), 5000);
    assert.equal(await file.size(), 0);
  },

  'a completion comes once, and not from within the call': async (file) => {
    let calls = 0;
    const buffer = pattern(4096, 6);
    await new Promise<void>((resolve) => {
      file.submitWrite(buffer, 0, {
        complete: (error) => {
          assert.equal(error, null);
          calls += 1;
          file.submitRead(buffer, 0, {
            complete: () => {
              calls += 1;
              resolve();
            },
          });
          assert.equal(calls, 1);
        },
      });
      assert.equal(calls, 0);
    });
    await new Promise(setImmediate);
    assert.equal(calls, 2);
  },

  'thousands of requests may be submitted at once': async (file) => {
    await file.truncate(1 << 22);
    const data = Array.from({ length: 5000 }, (_, index) => pattern(512, index));
    await Promise.all(data.map((bytes, index) => file.write(bytes, index * 512)));
    const reads = await Promise.all(data.map((_, index) => contents(file, index * 512, 512)));
    reads.forEach((bytes, index) => {
      assert.deepEqual(bytes, data[index]);
    });
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

  'writeZeroes makes zeroes and grows the file': async (file) => {
    for (const unmap of [false, true]) {
      const base = unmap ? 1 << 20 : 0;
      await file.write(pattern(100_000, 8), base);
      await file.writeZeroes(base + 1001, 50_003, unmap);
      const expected = pattern(100_000, 8).fill(0, 1001, 51_004);
      assert.deepEqual(await contents(file, base, 100_000), expected);
      await file.writeZeroes(base + 90_000, 100_001, unmap);
      assert.equal(await file.size(), base + 190_001);
      assert.deepEqual(await contents(file, base + 90_000, 100_001), new Uint8Array(100_001));
      assert.deepEqual(await contents(file, base, 90_000), expected.subarray(0, 90_000));
    }
  },

  'discard keeps the size, and says whether it left zeroes': async (file) => {
    await file.write(pattern(200_000, 9), 0);
    const zero = await file.discard(65_536, 65_536);
    assert.equal(await file.size(), 200_000);
    const expected = pattern(200_000, 9);
    if (zero) {
      expected.fill(0, 65_536, 131_072);
      assert.deepEqual(await contents(file, 0, 200_000), expected);
    }
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

  'status covers the file, and its holes read as zeroes': async (file) => {
    await file.truncate(4 << 20);
    await file.write(pattern(65_536, 11), 1 << 20);
    let offset = 0;
    let sawHole = false;
    while (offset < 5 << 20) {
      const { data, length } = await file.status(offset, (5 << 20) - offset);
      assert.ok(length > 0 && offset + length <= 5 << 20);
      if (!data) {
        sawHole = true;
        assert.ok((await contents(file, offset, length)).every((byte) => byte === 0));
      }
      offset += length;
    }
    assert.ok(sawHole, 'what lies beyond the end is a hole');
    if (file.limits.detectsHoles) {
      assert.equal((await file.status(0, 1)).data, false);
      const before = await file.status(1 << 19, 1 << 20);
      assert.deepEqual(before, { data: false, length: 1 << 19 });
    }
    assert.deepEqual(await file.status(1 << 20, 512), { data: true, length: 512 });
  },

  'status follows every change made through the file': async (file) => {
    if (!file.limits.detectsHoles) return;
    const at = 1 << 20;
    const state = async (): Promise<boolean> => (await file.status(at, 65_536)).data;
    await file.truncate(4 << 20);
    assert.equal(await state(), false);
    await file.write(pattern(65_536, 12), at);
    assert.equal(await state(), true);
    assert.equal(await file.discard(at, 65_536), true);
    assert.equal(await state(), false);
    await file.writeVector([pattern(65_536, 12)], at);
    assert.equal(await state(), true);
    await file.writeZeroes(at, 65_536, true);
    assert.equal(await state(), false);
  },

  'queues share the file and close one by one': async (file) => {
    const queue = file.openQueue();
    await file.write(pattern(4096, 13), 0);
    assert.deepEqual(await contents(queue, 0, 4096), pattern(4096, 13));
    await queue.write(pattern(4096, 14), 0);
    await queue.close();
    assert.deepEqual(await contents(file, 0, 4096), pattern(4096, 14));
    await assert.rejects(contents(queue, 0, 1), code('ERR_COWHERD_CLOSED'));
  },

  'copyFrom copies, or says that it cannot': async (file) => {
    await file.write(pattern(65_536, 15), 0);
    const copied = await file.copyFrom(file, 0, 1 << 20, 65_536);
    if (copied) assert.deepEqual(await contents(file, 1 << 20, 65_536), pattern(65_536, 15));
  },

  'flush succeeds, also without anything to flush': async (file) => {
    await file.flush();
    await file.write(pattern(1000, 16), 0);
    await Promise.all([file.flush(), file.flush()]);
  },

  'what is out of range is refused': async (file) => {
    const buffer = new Uint8Array(16);
    for (const offset of [-1, 0.5, NaN, Number.MAX_SAFE_INTEGER]) {
      await assert.rejects(file.read(buffer, offset), code('ERR_COWHERD_OUT_OF_RANGE'));
      await assert.rejects(file.write(buffer, offset), code('ERR_COWHERD_OUT_OF_RANGE'));
      await assert.rejects(file.discard(offset, 16), code('ERR_COWHERD_OUT_OF_RANGE'));
    }
  },

  'close waits for what is under way, and comes once': async (file) => {
    const write = file.write(pattern(1 << 20, 17), 0);
    let written = false;
    void write.then(() => {
      written = true;
    });
    await Promise.all([file.close(), file.close()]);
    assert.equal(written, true);
    await assert.rejects(file.flush(), code('ERR_COWHERD_CLOSED'));
    await assert.rejects(file.write(new Uint8Array(1), 0), code('ERR_COWHERD_CLOSED'));
  },
};

for (const backend of backends) {
  describe(backend.name, () => {
    for (const [name, promise] of Object.entries(promises)) {
      test(name, async (t) => {
        const file = await createOrSkip(t, backend);
        if (file !== undefined) await promise(file, t);
      });
    }
  });
}
