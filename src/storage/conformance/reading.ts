/** What every storage file promises to who reads it, and what it refuses if it can only be read. */
import assert from 'node:assert/strict';
import { type Promised, type Promises, code, contents, wrongOffsets } from './promise.js';

/** Of every file. */
export const readingPromises: Promises = {
  'a file has the length and the bytes that were put there': async (file, content) => {
    assert.equal(await file.size(), content.length);
    assert.deepEqual(await contents(file, 0, content.length), content);
  },

  'a file says what it is': async (file) => {
    const { filename, protocol, limits } = file;
    assert.deepEqual([typeof filename, typeof protocol], ['string', 'string']);
    assert.ok(Number.isInteger(Math.log2(limits.requestAlignment)), 'alignments are powers of two');
    const occupied = await file.allocatedSize();
    assert.ok(occupied === undefined || (Number.isInteger(occupied) && occupied >= 0));
    // Other threads get the handle by a message.
    structuredClone(file.handle?.());
  },

  'reads begin and end anywhere': async (file, content) => {
    for (const [offset, length] of [
      [0, 1],
      [1, 511],
      [511, 2],
      [4096, 4096],
      [65_535, 2],
      [100_000, 300_001],
      [content.length - 1, 1],
    ]) {
      const expected = content.subarray(offset, offset + length);
      assert.deepEqual(await contents(file, offset, length), expected);
    }
  },

  'reads beyond the end yield zeroes': async (file, content) => {
    const read = await contents(file, content.length - 500, 9000);
    assert.deepEqual(read.subarray(0, 500), content.subarray(content.length - 500));
    assert.deepEqual(read.subarray(500), new Uint8Array(8500));
    assert.deepEqual(await contents(file, content.length * 3, 4096), new Uint8Array(4096));
    assert.equal(await file.size(), content.length);
  },

  'a vector is filled buffer after buffer': async (file, content) => {
    const parts = [3, 0, 4096, 513, 70_000].map((length) => new Uint8Array(length));
    const length = 3 + 4096 + 513 + 70_000;
    await file.readVector(parts, 777);
    assert.deepEqual(Buffer.concat(parts), Buffer.from(content.subarray(777, 777 + length)));
    await file.readVector([], 0);
  },

  'a vector that is read may be longer than the system takes at once': async (file, content) => {
    const parts = Array.from({ length: 3000 }, () => new Uint8Array(6));
    await file.readVector(parts, 1);
    assert.deepEqual(Buffer.concat(parts), Buffer.from(content.subarray(1, 18_001)));
  },

  'what is read may lie on a SharedArrayBuffer, also in its middle': async (file, content) => {
    const shared = new Uint8Array(new SharedArrayBuffer(16_384)).subarray(1000, 9000);
    await file.read(shared, 4096);
    assert.deepEqual(Uint8Array.from(shared), content.subarray(4096, 12_096));
  },

  'an empty read does nothing': async (file, content) => {
    await file.read(new Uint8Array(0), 5000);
    await file.read(new Uint8Array(0), content.length + 5000);
    assert.equal(await file.size(), content.length);
  },

  'a read completes once, and not from within the call': async (file, content) => {
    let calls = 0;
    let isWithin = true;
    const buffer = new Uint8Array(4096);
    const error = await new Promise<Error | null>((resolve) => {
      file.submitRead(buffer, 0, {
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
    assert.deepEqual(buffer, content.subarray(0, 4096));
  },

  'thousands of reads may be submitted at once': async (file, content) => {
    const offsets = Array.from({ length: 2000 }, (_, index) => index * 512);
    const reads = await Promise.all(offsets.map((offset) => contents(file, offset, 512)));
    for (const [index, offset] of offsets.entries()) {
      assert.deepEqual(reads[index], content.subarray(offset, offset + 512));
    }
  },

  'status covers a file, and its holes read as zeroes': async (file, content) => {
    const end = content.length + 1_000_000;
    let isHole = false;
    for (let offset = 0; offset < end;) {
      const { data, length } = await file.status(offset, end - offset);
      assert.ok(length > 0 && offset + length <= end);
      isHole = !data;
      if (isHole) assert.ok((await contents(file, offset, length)).every((byte) => byte === 0));
      offset += length;
    }
    assert.ok(isHole, 'what lies beyond the end is a hole');
    assert.deepEqual(await file.status(4096, 512), { data: true, length: 512 });
  },

  'a read that is out of range is refused': async (file) => {
    for (const offset of wrongOffsets) {
      await assert.rejects(file.read(new Uint8Array(16), offset), code('ERR_COWHERD_OUT_OF_RANGE'));
    }
  },

  'queues read the file, and close one by one': async (file, content) => {
    const queue = file.openQueue();
    assert.deepEqual(await contents(queue, 100, 4096), content.subarray(100, 4196));
    await queue.close();
    assert.deepEqual(await contents(file, 200, 4096), content.subarray(200, 4296));
    await assert.rejects(contents(queue, 0, 1), code('ERR_COWHERD_CLOSED'));
  },

  'close waits for reads under way, and comes once': async (file, content) => {
    const buffer = new Uint8Array(content.length);
    let hasRead = false;
    const read = file.read(buffer, 0).then(() => {
      hasRead = true;
    });
    await Promise.all([file.close(), file.close()]);
    assert.equal(hasRead, true);
    await read;
    assert.deepEqual(buffer, content);
    await assert.rejects(file.flush(), code('ERR_COWHERD_CLOSED'));
    await assert.rejects(file.read(new Uint8Array(1), 0), code('ERR_COWHERD_CLOSED'));
  },
};

const changesNothing: Promised = async (file, content) => {
  assert.equal(file.readOnly, true);
  const buffer = new Uint8Array(512);
  for (const change of [
    () => file.write(buffer, 0),
    () => file.writeVector([buffer], 0),
    () => file.truncate(10),
    () => file.allocate(0, 4096, 'falloc'),
    () => file.writeZeroes(0, 512, true),
    () => file.discard(0, 512),
    () => file.copyFrom(file, 0, 4096, 512),
  ]) {
    await assert.rejects(change(), code('ERR_COWHERD_READ_ONLY'));
  }
  await file.flush();
  assert.equal(await file.size(), content.length);
  assert.deepEqual(await contents(file, 0, 8192), content.subarray(0, 8192));
};

/** Of files that can only be read. */
export const readOnlyPromises: Promises = {
  'what would change a file that is only read is refused': changesNothing,
};
