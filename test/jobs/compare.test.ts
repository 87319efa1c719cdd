/** The compare job by itself: exact offsets, sizes, strictness, progress, cancellation. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import type { Progress } from '../../src/image/api/long-operation.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { compare } from '../../src/jobs/compare.js';
import { firstDifference, firstNonZero } from '../../src/jobs/differences.js';
import { temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;

/** A raw and a qcow2 image of one size with the same bytes in a few places. */
async function pair(t: TestContext, size: number, places: readonly number[]) {
  const folder = await temporaryFolder(t);
  const [a, b] = [path.join(folder, 'a.raw'), path.join(folder, 'b.qcow2')];
  await createImage(a, { format: 'raw', size });
  await createImage(b, { format: 'qcow2', size, clusterSize: 4096 });
  for (const file of [a, b]) for (const place of places) await put(file, place, 0x11);
  return { a, b };
}

async function put(file: string, offset: number, byte: number, length = 3000): Promise<void> {
  await using image = await openImage(file);
  await image.write(new Uint8Array(length).fill(byte), offset);
}

test('the same content in different formats is identical', async (t) => {
  const { a, b } = await pair(t, 9 * mib, [0, 70_000, 5 * mib, 9 * mib - 3000]);
  assert.deepEqual(await compare(a, b), {
    identical: true,
    sizeA: 9 * mib,
    sizeB: 9 * mib,
  });
});

test('the first difference is found to the byte, however many requests run at once', async (t) => {
  const { a, b } = await pair(t, 24 * mib, [0, 3 * mib, 11 * mib, 23 * mib]);
  for (const offset of [23 * mib + 1234, 11 * mib + 77, 11 * mib + 76, 8 * mib + 5, 2999]) {
    await put(b, offset, 0x22, 1);
    for (const parallel of [1, 3, 16]) {
      const { difference } = await compare(a, b, { parallel });
      assert.deepEqual(difference, { kind: 'content', offset }, `${parallel} at once`);
    }
  }
});

test('what only the longer image has, has to be zeroes', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [path.join(folder, 'a.raw'), path.join(folder, 'b.raw')];
  await writeFile(a, Buffer.alloc(10_240, 7));
  await writeFile(b, Buffer.concat([Buffer.alloc(10_240, 7), Buffer.alloc(3 * mib)]));
  assert.equal((await compare(a, b)).identical, true);
  assert.equal((await compare(b, a)).identical, true);
  assert.deepEqual((await compare(a, b, { strict: true })).difference, {
    kind: 'size',
    offset: 10_240,
  });
  await put(b, 2 * mib + 9, 1, 1);
  for (const [first, second] of [
    [a, b],
    [b, a],
  ] as const) {
    const { difference } = await compare(first, second);
    assert.deepEqual(difference, { kind: 'content', offset: 2 * mib + 9 });
  }
});

test('strictly, how it is stored counts as well', async (t) => {
  const { a, b } = await pair(t, mib, []);
  assert.equal((await compare(a, b)).identical, true);
  assert.equal((await compare(a, b, { strict: true })).difference?.kind, 'status');
  assert.equal((await compare(b, b, { strict: true, forceShare: true })).identical, true);
});

test('progress grows to the whole', async (t) => {
  const { a, b } = await pair(t, 9 * mib, [0, 5 * mib, 5 * mib + 100_000]);
  const seen: Progress[] = [];
  await compare(a, b, { onProgress: (progress) => seen.push(progress) });
  const done = seen.map(({ doneBytes }) => doneBytes);
  assert.deepEqual(
    done,
    [...done].sort((x, y) => x - y),
  );
  assert.deepEqual(seen.at(-1), { doneBytes: 9 * mib, totalBytes: 9 * mib });
});

test('progress counts what is known to be equal, so never beyond a difference', async (t) => {
  const places = [mib, 30 * mib, 50 * mib];
  const { a, b } = await pair(t, 64 * mib, places);
  for (const offset of places) await put(a, offset + 100_000, 0x33, 3 * mib);
  for (const offset of [50 * mib, 30 * mib, mib]) {
    await put(b, offset + 100_000, 0x33, 3 * mib);
    await put(b, offset + 100_000, 0x44, 1);
    for (const parallel of [1, 16]) {
      const seen: number[] = [];
      const onProgress = ({ doneBytes }: Progress): void => void seen.push(doneBytes);
      const { difference } = await compare(a, b, { parallel, onProgress });
      assert.equal(difference?.kind, 'content');
      assert.deepEqual(
        seen,
        [...new Set(seen)].sort((x, y) => x - y),
      );
      const last = seen.at(-1) ?? 0;
      assert.ok(last <= difference.offset, `${last} of ${difference.offset}`);
    }
  }
});

test('a signal ends it', async (t) => {
  const { a, b } = await pair(t, 9 * mib, [0, 5 * mib]);
  await assert.rejects(
    compare(a, b, { signal: AbortSignal.abort() }),
    (error) => error instanceof CowherdError && error.code === 'ERR_COWHERD_ABORTED',
  );
});

test('differences of buffers are found at every place', () => {
  for (const length of [0, 1, 63, 64, 65, 4096, 200_000]) {
    const bytes = new Uint8Array(length);
    assert.equal(firstDifference(bytes, bytes.slice()), -1);
    assert.equal(firstNonZero(bytes), -1);
    for (const place of [0, 1, 64, length >>> 1, length - 1]) {
      if (place < 0 || place >= length) continue;
      const other = bytes.slice();
      other[place] = 1;
      if (length - 1 > place) other[length - 1] = 2;
      assert.equal(firstDifference(bytes, other), place);
      assert.equal(firstNonZero(other), place);
    }
  }
});
