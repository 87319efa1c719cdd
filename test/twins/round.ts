/** One pair of images, from its making through a sequence of steps. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { comparable, placeless } from './comparable.js';
import { type Geometry, creation } from './geometry.js';
import { PeerLeaks, hasAborted, isExcepted } from './exceptions.js';
import { compareDisks, compareImages } from './oracle.js';
import { Pair } from './pair.js';
import type { DiskFacts, Step } from './step.js';
import type { TwinTally } from './tally.js';

/** What one round does. */
export interface Round {
  readonly geometry: Geometry;
  readonly steps: readonly Step[];
}

/** What fails is told with what was done last. */
class Different extends Error {
  constructor(
    readonly operation: string,
    words: readonly string[],
    cause: unknown,
  ) {
    super(`${words.join(' ')}: ${String(cause)}`, { cause });
  }
}

/** Runs a round, and counts its steps. @throws where the twins differ */
export async function runRound({ geometry, steps: drawn }: Round, tally: TwinTally): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-twins-'));
  let last: Pick<Step, 'operation' | 'words'> = { operation: 'create', words: [] };
  try {
    const pair = await Pair.make(folder);
    // Entries of data in another file keep their places here, whatever is zeroed or given up.
    pair.isStoredOtherwise = geometry.keeping.endsWith('file');
    for (const words of creation(geometry)) {
      last = { operation: 'create', words };
      const { mine, theirs } = await pair.run(words);
      assert.deepEqual(comparable(mine), comparable(theirs));
    }
    let { disk } = await compareDisks(pair, geometry);
    tally.images++;
    for (const step of drawn) {
      last = step;
      const after = await runStep(pair, geometry, step, disk, tally);
      if (after === undefined) return;
      disk = after;
    }
  } catch (error) {
    if (error instanceof PeerLeaks) {
      tally.leaked++;
      return;
    }
    tally.addDifference(last.operation);
    throw new Different(last.operation, last.words, error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** @returns what the disk is then; undefined where the real tool gave up */
async function runStep(
  pair: Pair,
  geometry: Geometry,
  step: Step,
  disk: DiskFacts,
  tally: TwinTally,
): Promise<DiskFacts | undefined> {
  const { operation, words, touched = [], isReport = false } = step;
  if (step.isLeftOut?.(disk) === true) return disk;
  if (step.isStoredOtherwise?.(disk) === true) pair.isStoredOtherwise = true;
  if (step.isRecordedOtherwise?.(disk) === true) pair.isRecordedOtherwise = true;
  const { mine, theirs } = await pair.run(words, isReport);
  if (hasAborted(theirs)) {
    tally.aborted++;
    return undefined;
  }
  const kept = isReport ? comparable : placeless;
  if (!isExcepted(step, disk)) assert.deepEqual(kept(mine), kept(theirs));
  assert.equal(mine.code, theirs.code);
  let after = disk;
  if (!isReport) {
    const likeness = await compareDisks(pair, geometry);
    if (likeness.samePlaces) tally.samePlaces++;
    after = likeness.disk;
    if (theirs.code === 0) await compareImages(pair, touched);
  }
  tally.add(operation, theirs.code === 0);
  return after;
}
