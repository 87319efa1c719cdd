/** What copying data from file to file promises, on every backend: content, places and their order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CopiedPart, CopySegment, StorageFile } from '../../src/storage/storage.js';
import { backends, createOrSkip } from './backends.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);

const block = 512;
const sourceBlocks = 256;

/** A stretch of blocks to copy: from a block of the source on, or zeroes. */
const stretch = fc.record({
  from: fc.option(fc.nat(sourceBlocks - 33), { nil: undefined, freq: 4 }),
  blocks: fc.integer({ min: 1, max: 32 }),
});
/** A copy: its stretches, and bytes that are missing at its end. */
const copy = fc.record({
  stretches: fc.array(stretch, { minLength: 1, maxLength: 6 }),
  missing: fc.nat(block - 1),
});
const copies = fc.array(copy, { minLength: 1, maxLength: 6 });
/** How many copies are under way at a time. */
const atOnce = fc.integer({ min: 1, max: 6 });
const granules = fc.constantFrom(512, 2048, 4096);
/** Bytes that a thread copies at a time, where threads do it. */
const stretchSizes = fc.constantFrom(512, 1536, 8192, 1 << 20);
type Copies = typeof copies extends fc.Arbitrary<infer Value> ? Value : never;

/** Every third block, and all from 100 to 140, are zeroes; others differ from one another. */
function sourceBytes(): Uint8Array {
  const bytes = new Uint8Array(sourceBlocks * block);
  for (let index = 0; index < sourceBlocks; index++) {
    if (index % 3 === 0 || (index >= 100 && index < 140)) continue;
    bytes.fill(1 + (index % 255), index * block, (index + 1) * block);
    // Zeroes at either end of a block do not make it less than data.
    bytes[index * block] = 0;
  }
  return bytes;
}

function planned({ stretches, missing }: Copies[number], source: StorageFile, bytes: Uint8Array) {
  const whole = stretches.reduce((sum, { blocks }) => sum + blocks, 0) * block;
  const length = whole - missing;
  const content = new Uint8Array(whole);
  const segments: CopySegment[] = [];
  let at = 0;
  for (const { from, blocks } of stretches) {
    const end = Math.min(length, at + blocks * block);
    if (from !== undefined) content.set(bytes.subarray(from * block, from * block + end - at), at);
    const file = from === undefined ? undefined : source;
    if (end > at) segments.push({ file, offset: (from ?? 0) * block, length: end - at });
    at = end;
  }
  return { segments, length, content: content.subarray(0, length) };
}

/** Begins so many at once, the next when these have ended. */
async function inRounds<One, Result>(
  all: readonly One[],
  count: number,
  begin: (one: One, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  while (results.length < all.length) {
    const done = results.length;
    const round = all.slice(done, done + count);
    results.push(...(await Promise.all(round.map((one, index) => begin(one, done + index)))));
  }
  return results;
}

/** Stretches of blocks, joined, that `isData` says of where each begins. */
function joined(length: number, size: number, isData: (at: number) => boolean): CopiedPart[] {
  const parts: { at: number; length: number; hostOffset: number }[] = [];
  for (let at = 0; at < length; at += size) {
    if (!isData(at)) continue;
    const last = parts.at(-1);
    const bytes = Math.min(size, length - at);
    if (last !== undefined && last.at + last.length === at) last.length += bytes;
    else parts.push({ at, length: bytes, hostOffset: -1 });
  }
  return parts;
}

async function read(file: StorageFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return bytes;
}

/** Runs a test with two files of every backend that this system has. */
function onEveryBackend(
  name: string,
  body: (source: StorageFile, target: StorageFile) => Promise<void>,
): void {
  for (const backend of backends) {
    test(`${backend.name}: ${name}`, async (t) => {
      t.diagnostic(`seed ${seed}, ${numRuns} runs`);
      const source = await createOrSkip(t, backend);
      const target = source && (await createOrSkip(t, backend));
      if (source !== undefined && target !== undefined) await body(source, target);
    });
  }
}

onEveryBackend('copies with places of their own', async (source, target) => {
  const bytes = sourceBytes();
  await source.write(bytes, 0);
  await fc.assert(
    fc.asyncProperty(
      copies,
      fc.constantFrom(0, block),
      atOnce,
      stretchSizes,
      fc.boolean(),
      async (list, sparseSize, rounds, stretchBytes, isShared) => {
        await target.truncate(0);
        const copier = target.dataCopier({ granule: 0, sparseSize, stretchBytes, isShared });
        const plans = list.map((one) => planned(one, source, bytes));
        const distance = 1 << 20;
        const outcomes = await inRounds(plans, rounds, ({ segments, length }, index) =>
          copier.copy(segments, index * distance, length),
        );
        for (const [index, { parts, failure }] of outcomes.entries()) {
          const { content, length } = plans[index];
          assert.equal(failure, undefined);
          const isData = (at: number): boolean =>
            sparseSize === 0 || content.subarray(at, at + block).some((byte) => byte !== 0);
          const expected = joined(length, block, isData).map((part) => ({
            ...part,
            hostOffset: index * distance + part.at,
          }));
          assert.deepEqual(parts, expected);
          assert.deepEqual(await read(target, index * distance, length), content);
        }
      },
    ),
    { seed, numRuns },
  );
});

onEveryBackend('offloaded copies, of which the host may do some', async (source, target) => {
  const bytes = sourceBytes();
  await source.write(bytes, 0);
  await fc.assert(
    fc.asyncProperty(copies, atOnce, async (list, rounds) => {
      await target.truncate(0);
      const copier = target.dataCopier({ granule: 0, sparseSize: block, offload: true });
      const plans = list.map((one) => planned(one, source, bytes));
      const distance = 1 << 20;
      const outcomes = await inRounds(plans, rounds, ({ segments, length }, index) =>
        copier.copy(segments, index * distance, length),
      );
      for (const [index, { parts, failure }] of outcomes.entries()) {
        const { content, length } = plans[index];
        assert.equal(failure, undefined);
        assert.deepEqual(await read(target, index * distance, length), content);
        let end = 0;
        for (const part of parts) {
          assert.ok(part.at >= end && part.hostOffset === index * distance + part.at);
          assert.ok(
            !content.subarray(end, part.at).some((byte) => byte !== 0),
            'a part is missing',
          );
          end = part.at + part.length;
        }
        assert.ok(end <= length && !content.subarray(end).some((byte) => byte !== 0));
      }
    }),
    { seed, numRuns },
  );
});

onEveryBackend('copies that take their places in order', async (source, target) => {
  const bytes = sourceBytes();
  await source.write(bytes, 0);
  const rooms = fc.array(
    fc.record({ granules: fc.integer({ min: 1, max: 40 }), isZero: fc.boolean() }),
    { minLength: 1 },
  );
  await fc.assert(
    fc.asyncProperty(
      copies,
      rooms,
      granules,
      atOnce,
      stretchSizes,
      fc.boolean(),
      async (list, given, ...rule) => {
        const [granule, rounds, stretchBytes, isShared] = rule;
        await target.truncate(0);
        const copier = target.dataCopier({ granule, sparseSize: block, stretchBytes, isShared });
        const plans = list.map((one) => planned(one, source, bytes));
        const needed = plans.reduce((sum, { length }) => sum + Math.ceil(length / granule), 0);
        /** Host offset of each granule of room, in the order in which they are used. */
        const places: number[] = [];
        let end = 0;
        for (let index = 0; places.length < needed; index++) {
          const { granules, isZero } = given[index % given.length];
          const start = end + granule * (1 + (index % 2));
          if (!isZero) await target.write(new Uint8Array(granules * granule).fill(0xa5), start);
          copier.offer(start, granules * granule, isZero);
          for (let one = 0; one < granules; one++) places.push(start + one * granule);
          end = start + granules * granule;
        }
        const outcomes = await inRounds(plans, rounds, ({ segments, length }) =>
          copier.copy(segments, 0, length),
        );
        for (const [index, { parts, failure }] of outcomes.entries()) {
          const { content, length } = plans[index];
          assert.equal(failure, undefined);
          const isData = (at: number): boolean =>
            content.subarray(at, at + granule).some((byte) => byte !== 0);
          const wanted = joined(Math.ceil(length / granule) * granule, granule, isData);
          const seen = parts.flatMap(({ at, length: count, hostOffset }) =>
            Array.from({ length: count / granule }, (_, one) => ({
              at: at + one * granule,
              hostOffset: hostOffset + one * granule,
            })),
          );
          const expectedPlaces = wanted.flatMap(({ at, length: count }) =>
            Array.from({ length: count / granule }, (_, one) => at + one * granule),
          );
          assert.deepEqual(
            seen,
            expectedPlaces.map((at) => ({ at, hostOffset: places.shift() })),
          );
          for (const { at, hostOffset } of seen) {
            const expected = new Uint8Array(granule);
            expected.set(content.subarray(at, at + granule));
            assert.deepEqual(await read(target, hostOffset, granule), expected);
          }
        }
      },
    ),
    { seed, numRuns },
  );
});
onEveryBackend('a copy that fails says so, and those after it go on', async (source, target) => {
  await source.write(new Uint8Array(8192).fill(7), 0);
  const closed = source.openQueue();
  await closed.close();
  const copier = target.dataCopier({ granule: 4096, sparseSize: 4096 });
  copier.offer(65_536, 4 * 4096, true);
  const good = [{ file: source, offset: 0, length: 4096 }];
  const outcomes = await Promise.all([
    copier.copy(good, 0, 4096),
    copier.copy([{ file: closed, offset: 0, length: 4096 }], 0, 4096),
    copier.copy(good, 0, 4096),
  ]);
  assert.deepEqual(
    outcomes.map(({ failure }) => failure === undefined),
    [true, false, true],
  );
  assert.deepEqual(outcomes[0].parts, [{ at: 0, length: 4096, hostOffset: 65_536 }]);
  assert.deepEqual(outcomes[2].parts, [{ at: 0, length: 4096, hostOffset: 69_632 }]);
});
