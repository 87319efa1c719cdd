/** What is reserved of a target ahead of its data, and what of that is given back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Piece } from '../../src/jobs/copy-pieces.js';
import { ReserveAhead } from '../../src/jobs/reserve-ahead.js';

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

/** Copies a disk whose MiBs are as told, in pieces of 4 MiB. */
async function copy(disk: readonly Content[], target: Target): Promise<void> {
  const ahead = new ReserveAhead(target);
  for await (const piece of ahead.pieces(piecesOf(disk))) {
    if (piece.kind !== 'data') continue;
    const runs: number[] = [0];
    for (let at = piece.start / mib; at < (piece.start + piece.length) / mib; at++) {
      const zero = disk[at] === 'zeroes';
      if (zero !== (runs.length % 2 === 0)) runs.push(0);
      runs[runs.length - 1] += mib;
    }
    await ahead.before(piece, runs);
    runs.reduce((at, length, index) => {
      if (index % 2 === 0) target.write(at, length);
      return at + length;
    }, piece.start);
  }
}

type Content = 'hole' | 'data' | 'zeroes';

// eslint-disable-next-line @typescript-eslint/require-await
async function* piecesOf(disk: readonly Content[]): AsyncGenerator<Piece> {
  for (let at = 0; at < disk.length;) {
    const isHole = disk[at] === 'hole';
    let end = at + 1;
    while (end < disk.length && (disk[end] === 'hole') === isHole && end - at < 4) end++;
    yield { kind: isHole ? 'zero' : 'data', start: at * mib, length: (end - at) * mib };
    at = end;
  }
}

test('in the end blocks are there for the data and for nothing else', async () => {
  const contents = fc.array(
    fc.tuple(fc.constantFrom<Content>('hole', 'data', 'zeroes'), fc.integer({ min: 1, max: 90 })),
    { maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(contents, async (stretches) => {
      const disk = stretches.flatMap(([content, count]) => Array<Content>(count).fill(content));
      const target = new Target(disk.length);
      await copy(disk, target);
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
  for await (const piece of ahead.pieces(piecesOf(Array<Content>(400).fill('data')))) {
    await ahead.before(piece, [piece.length]);
  }
  assert.equal(tries, 1);
});
