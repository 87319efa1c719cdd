/**
 * Writers that need host clusters where free ones lie apart, one by one: whoever waits for one may
 * find that another, who waited as well, has taken it.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../src/engine/space/arena.js';
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';
import { QueueWord, queueWord } from '../../src/engine/words/control-block.js';
import { fragmentedSpace, mixedWeights } from '../support/fragmented-space.js';
import { needsTool } from '../support/tools.js';
import { lanes, requests } from './requests.js';
import { codecsCanBeChosen } from './simulated-device.js';
import {
  type DiskOptions,
  type Request,
  SimulatedDisk,
  powerCuts,
  propertyParameters,
  schedules,
} from './simulated-disk.js';

const clusterSize = 512;
const space = fragmentedSpace({ clusterSize, filled: 96, apart: 4, tables: 6 });

function each(kind: 'write' | 'discard', clusters: readonly number[]): Request[] {
  return clusters.map((sector) => ({ kind, sector, count: 1 }));
}

/** Refcount blocks of 64 clusters, so that new ones are needed once what is free is used up. */
const disk: DiskOptions = {
  image: { clusterSize, refcountBits: 64 },
  size: space.clusters * clusterSize,
  queues: 3,
  beforeSnapshot: each('write', space.held),
  before: [...each('write', space.written), ...each('discard', space.given)],
};

/** Whether a run needs what this machine has not. */
function lacks(t: TestContext): boolean {
  if (!needsTool(t, 'qemu-img')) return true;
  if (codecsCanBeChosen()) return false;
  t.skip('without the addon, codecs answer when they like');
  return true;
}

test('requests of every kind in fragmented space: any schedule', async (t) => {
  if (lacks(t)) return;
  const request = requests({
    sectorsPerCluster: 1,
    clusters: space.touched,
    weights: mixedWeights,
  });
  await fc.assert(
    fc.asyncProperty(lanes(request, 3), powerCuts, schedules, async (drawn, cuts, order) => {
      const simulated = await SimulatedDisk.open(t, disk, order);
      const verdicts = simulated.cutPower(cuts);
      await simulated.runLanes(drawn);
      await simulated.closeAndJudge();
      await Promise.all(verdicts.map((verdict) => verdict()));
    }),
    propertyParameters(t, 15),
  );
});

const writers = 1;

/**
 * At one queue, a plain write that needs an L2 table and a compressed one both wait for a cluster, and
 * only one is found.
 *
 * @param sabotage puts a wrong arena in place of the right one
 */
async function twoForOneCluster(
  t: TestContext,
  sabotage: (disk: SimulatedDisk) => void = () => undefined,
): Promise<SimulatedDisk> {
  const simulated = await SimulatedDisk.open(t, disk);
  sabotage(simulated);
  const { device, format } = simulated;
  const obtain = t.mock.method(Arena.prototype, 'obtain');
  const counts = format.metadata.refcounts.locate(0);
  const hold = device.hold(({ kind, offset }) => kind === 'read' && offset === counts);
  const [unmapped] = space.unmapped;
  const plain = simulated.ask(writers, { kind: 'write', sector: unmapped, count: 1 });
  await device.drive(hold.meeting());
  const compressed = simulated.ask(writers, { kind: 'compress', sector: space.held[0], count: 1 });
  while (obtain.mock.callCount() < 2) await device.drive(device.chosen('a while'));
  obtain.mock.restore();
  hold.release();
  const ended = await device.drive(Promise.allSettled([plain, compressed]));
  for (const end of ended) if (end.status === 'rejected') throw end.reason;
  return simulated;
}

test('two writers wait for one cluster: the second one waits for another', async (t) => {
  if (lacks(t)) return;
  const simulated = await twoForOneCluster(t);
  await simulated.closeAndJudge();
});

/** Wrong: whoever has waited takes it for granted that a cluster is there. */
async function obtainOnce(this: Arena): ReturnType<Arena['obtain']> {
  if (this.available === 0) await this.refill();
  const { knownZero } = this;
  return { cluster: this.take(1), length: 1, knownZero };
}

/** Wrong: takes whatever comes after the run. */
function takeUnchecked(memory: AtomicMemory, line: number): (count: number) => number {
  const load = (word: (typeof QueueWord)[keyof typeof QueueWord]): number =>
    memory.load(queueWord(line, word));
  return (count) =>
    load(QueueWord.reservedHigh) * 2 ** 30 +
    load(QueueWord.reservedLow) +
    memory.add(queueWord(line, QueueWord.reservedTaken), count);
}

test('two writers wait for one cluster: an arena that does not look again is found by itself', async (t) => {
  if (lacks(t)) return;
  const sabotaged = twoForOneCluster(t, () => {
    t.mock.method(Arena.prototype, 'obtain', obtainOnce);
  });
  await assert.rejects(sabotaged, /clusters that are not reserved/);
});

test('two writers wait for one cluster: an arena that gives what is not its own is found', async (t) => {
  if (lacks(t)) return;
  const simulated = await twoForOneCluster(t, ({ format }) => {
    t.mock.method(Arena.prototype, 'obtain', obtainOnce);
    t.mock.method(Arena.prototype, 'take', takeUnchecked(format.metadata.control, writers));
  });
  t.mock.restoreAll();
  await assert.rejects(simulated.closeAndJudge(), /sector \d+ in the end shows/);
});
