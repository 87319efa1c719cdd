/** Whether data of files are the same, on every backend: what is found is what comparing the bytes finds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addon } from '../../src/native/addon.js';
import { FilePosix } from '../../src/storage/file/file-posix.js';
import { haveSameData } from '../../src/storage/same-data.js';
import type { CopySegment, StorageFile } from '../../src/storage/storage.js';
import { backends, createOrSkip } from './backends.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);

const block = 512;
/** More than a thread compares at a time. */
const blocks = 3000;

/** Cuts, in blocks, of what is compared into segments of either side. */
const cuts = fc.uniqueArray(fc.integer({ min: 1, max: blocks - 1 }), { maxLength: 6 });
/** Blocks of zeroes, of the first file and of both; and a byte that differs. */
const content = fc.record({
  zeroes: fc.array(fc.nat(blocks - 1), { maxLength: 20 }),
  allZeroes: fc.boolean(),
  missing: fc.nat(block - 1),
  different: fc.option(fc.nat(blocks * block - 1)),
});

/** Segments of a file; those that are zeroes name no file where that is wanted. */
function segmentsOf(
  file: StorageFile,
  bytes: Uint8Array,
  at: readonly number[],
  namesZeroes: boolean,
): CopySegment[] {
  const ends = [...at].sort((one, other) => one - other).map((cut) => cut * block);
  const segments: CopySegment[] = [];
  let offset = 0;
  for (const end of [...ends.filter((cut) => cut < bytes.length), bytes.length]) {
    const isZero = bytes.subarray(offset, end).every((byte) => byte === 0);
    const named = isZero && !namesZeroes ? undefined : file;
    segments.push({ file: named, offset, length: end - offset });
    offset = end;
  }
  return segments;
}

for (const backend of backends) {
  test(`${backend.name}: data are the same, or not (seed ${seed})`, async (t) => {
    const first = await createOrSkip(t, backend);
    const second = first && (await createOrSkip(t, backend));
    if (first === undefined || second === undefined) return;
    await fc.assert(
      fc.asyncProperty(content, cuts, cuts, fc.boolean(), async (drawn, one, other, named) => {
        const bytes = new Uint8Array(blocks * block - drawn.missing);
        if (!drawn.allZeroes) bytes.forEach((_, index) => (bytes[index] = 1 + (index % 251)));
        for (const index of drawn.zeroes) bytes.fill(0, index * block, (index + 1) * block);
        const others = bytes.slice();
        const { different } = drawn;
        const differs = different !== null && different < bytes.length;
        if (differs) others[different] ^= 0x80;
        await first.write(bytes, 0);
        await second.write(others, 0);
        const segments = segmentsOf(first, bytes, one, named);
        const same = await haveSameData(
          segments,
          segmentsOf(second, others, other, named),
          bytes.length,
        );
        const isNative = addon !== undefined && first instanceof FilePosix;
        if (same === undefined) assert.ok(!isNative || segments.every(({ file }) => !file));
        else assert.equal(same, !differs);
      }),
      { seed, numRuns },
    );
  });
}

test('what cannot be read is not told', async (t) => {
  const [backend] = backends;
  const file = await createOrSkip(t, backend);
  if (file === undefined) return;
  await file.write(new Uint8Array(8192).fill(7), 0);
  const closed = file.openQueue();
  await closed.close();
  const segment = { offset: 0, length: 8192 };
  const same = await haveSameData([{ file, ...segment }], [{ file: closed, ...segment }], 8192);
  assert.equal(same, undefined);
});
