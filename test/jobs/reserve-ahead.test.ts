/** What is reserved of a target ahead of its data, and what of that is given back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CopiedPart, PlainBytes } from '../../src/image/graph/data-copy.js';
import { type Step, stepOf } from '../../src/jobs/copy-windows.js';
import { ReserveAhead, type RunStep } from '../../src/jobs/reserve-ahead.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 100);

const mib = 1024 * 1024;

/** A target that knows of each MiB whether blocks are reserved, written, or neither. */
class Target {
  readonly states: ('hole' | 'reserved' | 'written')[];
  /** Ranges in MiB in the order in which they were reserved. */
  readonly reservations: [number, number][] = [];

  constructor(count: number) {
    this.states = Array.from({ length: count }, () => 'hole');
  }

  reserve(offset: number, length: number): Promise<boolean> {
    this.reservations.push([offset / mib, length / mib]);
    this.#each(offset, length, 'hole', 'reserved');
    return Promise.resolve(true);
  }

  discard(offset: number, length: number): Promise<void> {
    const range = this.states.slice(offset / mib, (offset + length) / mib);
    assert.ok(!range.includes('written'), 'data are given back');
    this.#each(offset, length, 'reserved', 'hole');
    return Promise.resolve();
  }

  write(offset: number, length: number): void {
    this.states.fill('written', offset / mib, (offset + length) / mib);
  }

  #each(offset: number, length: number, from: string, to: 'hole' | 'reserved'): void {
    for (let at = offset / mib; at < (offset + length) / mib; at++) {
      if (this.states[at] === from) this.states[at] = to;
    }
  }
}

/**
 * Copies a disk whose MiBs are as told, in pieces of 4 MiB: each is looked at before it is written, or
 * some are under way at a time and tell afterwards what they were. One in `failing` of those fails, if
 * that is not 0, and is looked at and written while others are under way that come after it.
 */
async function copy(
  disk: readonly Content[],
  target: Target,
  underWay: number,
  failing = 0,
): Promise<void> {
  const ahead = new ReserveAhead(target);
  const later: (() => Promise<void>)[] = [];
  let begun = 0;
  for await (const step of ahead.steps(stepsOf(disk))) {
    if (step.kind !== 'data') continue;
    const runs: number[] = [0];
    for (let at = step.start / mib; at < (step.start + step.length) / mib; at++) {
      const zero = disk[at] === 'zeroes';
      if (zero !== (runs.length % 2 === 0)) runs.push(0);
      runs[runs.length - 1] += mib;
    }
    const parts: CopiedPart[] = [];
    runs.reduce((at, length, index) => {
      const hostOffset = step.start + at;
      if (index % 2 === 0 && length > 0) parts.push({ at, length, hostOffset });
      return at + length;
    }, 0);
    await ahead.before(step, underWay === 0 ? runs : [step.length]);
    const write = (): void => {
      for (const { hostOffset, length } of parts) target.write(hostOffset, length);
    };
    if (underWay > 0 && failing > 0 && ++begun % failing === 0) {
      later.push(async () => {
        await ahead.before(step, runs);
        write();
      });
    } else {
      write();
      if (underWay > 0) later.push(() => ahead.after(step, parts));
    }
    while (later.length > underWay) await later.shift()!();
  }
  for (const tell of later) await tell();
}

type Content = 'hole' | 'data' | 'zeroes';

// eslint-disable-next-line @typescript-eslint/require-await
async function* stepsOf(disk: readonly Content[]): AsyncGenerator<Step> {
  for (let at = 0; at < disk.length;) {
    const isHole = disk[at] === 'hole';
    let end = at + 1;
    while (end < disk.length && (disk[end] === 'hole') === isHole && end - at < 4) end++;
    yield stepOf({ kind: isHole ? 'zero' : 'data', start: at * mib, length: (end - at) * mib });
    at = end;
  }
}

// eslint-disable-next-line @typescript-eslint/require-await
async function* eachOf(steps: readonly Step[]): AsyncGenerator<Step> {
  yield* steps;
}

test('in the end blocks are there for the data and for nothing else', async () => {
  const contents = fc.array(
    fc.tuple(fc.constantFrom<Content>('hole', 'data', 'zeroes'), fc.integer({ min: 1, max: 90 })),
    { maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(contents, fc.nat(3), fc.nat(4), async (stretches, underWay, failing) => {
      const disk = stretches.flatMap(([content, count]) => Array<Content>(count).fill(content));
      const target = new Target(disk.length);
      await copy(disk, target, underWay, failing);
      assert.deepEqual(
        target.states,
        disk.map((content) => (content === 'data' ? 'written' : 'hole')),
      );
    }),
    { seed, numRuns, endOnFailure: true },
  );
});

test('blocks of data that follow one another are reserved in large runs, in guest order', async () => {
  const target = new Target(320);
  await copy(
    Array<Content>(300).fill('data').concat(Array<Content>(10).fill('hole'), 'data'),
    target,
    0,
  );
  assert.deepEqual(target.reservations, [
    [0, 128],
    [128, 128],
    [256, 44],
  ]);
});

test('where reserving is refused it is not tried again', async () => {
  let tries = 0;
  const ahead = new ReserveAhead({
    reserve: () => Promise.resolve(++tries < 0),
    discard: (offset) => {
      assert.equal(offset, 0, 'nothing is reserved');
      return Promise.resolve();
    },
  });
  for await (const piece of ahead.steps(stepsOf(Array<Content>(400).fill('data')))) {
    await ahead.before(piece, [piece.length]);
  }
  assert.equal(tries, 1);
});

test('what is looked at once more, after others have begun, takes nothing from them', async () => {
  const given: number[] = [];
  const ahead = new ReserveAhead({
    reserve: () => Promise.resolve(true),
    discard: (offset, length) => {
      given.push(offset, offset + length);
      return Promise.resolve();
    },
  });
  const steps: RunStep[] = [];
  for await (const step of ahead.steps(stepsOf(Array<Content>(20).fill('data')))) steps.push(step);
  const [failed, scattered, last] = steps;
  for (const step of [failed, scattered]) await ahead.before(step, [step.length]);
  // More zeroes than are given back each by itself.
  const parts = Array.from({ length: 100 }, (_, index) => {
    const at = index * 8192;
    return { at, length: 4096, hostOffset: scattered.start + at };
  });
  await ahead.after(scattered, parts);
  await ahead.before(last, [last.length]);
  given.length = 0;
  await ahead.before(failed, [failed.length - 4096, 4096]);
  const end = failed.start + failed.length;
  assert.deepEqual(given, [end - 4096, end]);
});

test('windows that are known to be scattered are left to the file system, others are reserved', async () => {
  const target = new Target(64);
  const window = (start: number, holes: number): Step => {
    const length = (16 * mib) / (2 * holes + 1);
    const segments = Array.from({ length: 2 * holes + 1 }, (_, index) => ({
      bytes: index % 2 === 0 ? ({} as PlainBytes) : undefined,
      length,
    }));
    const dataBytes = length * (holes + 1);
    return { kind: 'copy', start, length: 16 * mib, dataBytes, portions: [dataBytes], segments };
  };
  const windows = [window(0, 0), window(16 * mib, 7), window(32 * mib, 1), window(48 * mib, 0)];
  const ahead = new ReserveAhead(target);
  for await (const step of ahead.steps(eachOf(windows))) await ahead.before(step, [step.length]);
  assert.deepEqual(target.reservations, [
    [0, 16],
    [32, 32],
  ]);
});
