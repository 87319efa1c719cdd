/** Clusters given up while others still use them, and handed out again: never too early. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { needsTool } from '../support/tools.js';
import { lanes, requests } from './requests.js';
import {
  type Request,
  SimulatedDisk,
  powerCuts,
  propertyParameters,
  schedules,
} from './simulated-disk.js';
import { codecsCanBeChosen } from './simulated-device.js';

const clusterSize = 65536;
const sectorsPerCluster = clusterSize / 512;

// Large clusters, so that arenas are used up soon and clusters given up are taken again.
const disk = { image: { clusterSize }, size: 16 * clusterSize, queues: 4 };

function whole(kind: 'write' | 'discard' | 'read' | 'compress', cluster: number): Request {
  return { kind, sector: cluster * sectorsPerCluster, count: sectorsPerCluster };
}

/** Where the guest clusters of a disk lie in its file. */
async function hostOffsets(disk: SimulatedDisk, clusters: readonly number[]): Promise<number[]> {
  const offsets: number[] = [];
  for (const cluster of clusters) {
    const range = { offset: cluster * clusterSize, length: clusterSize };
    await disk.device.drive(
      (async () => {
        for await (const extent of disk.image.map(range)) offsets.push(extent.offset ?? -1);
      })(),
    );
  }
  return offsets;
}

async function randomRun(
  t: TestContext,
  runs: number,
  weights: Readonly<Partial<Record<Request['kind'], number>>>,
  before: readonly Request[],
  backedSectors = 0,
): Promise<void> {
  if (!needsTool(t, 'qemu-img')) return;
  const request = requests({ sectorsPerCluster, clusters: [0, 1, 2, 3, 4, 5, 6, 7], weights });
  await fc.assert(
    fc.asyncProperty(lanes(request, 4), powerCuts, schedules, async (drawn, cuts, order) => {
      const simulated = await SimulatedDisk.open(t, { ...disk, before, backedSectors }, order);
      const verdicts = simulated.cutPower(cuts);
      await simulated.runLanes(drawn);
      await simulated.closeAndJudge();
      await Promise.all(verdicts.map((verdict) => verdict()));
    }),
    propertyParameters(t, runs),
  );
}

const written = [0, 1, 2, 3].map((cluster) => whole('write', cluster));

test('discard against flush against allocate: any schedule', async (t) => {
  await randomRun(t, 25, { write: 5, discard: 4, flush: 3, read: 2, zero: 1 }, written);
});

test('discard against flush against allocate: above a backing file', async (t) => {
  const weights = { write: 4, discard: 4, flush: 2, read: 3, zero: 3 };
  await randomRun(t, 12, weights, written.slice(0, 2), 5 * sectorsPerCluster + 3);
});

test('discard against flush against allocate: compressed clusters', async (t) => {
  if (!codecsCanBeChosen()) {
    t.skip('without the addon, codecs answer when they like');
    return;
  }
  const compressed = [0, 1, 2, 3].map((cluster) => whole('compress', cluster));
  const weights = { write: 4, discard: 3, flush: 3, read: 4, compress: 4 };
  await randomRun(t, 10, weights, compressed);
});

test('slow write into a discarded and reused cluster: it waits in limbo', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, { ...disk, before: written });
  const { device } = simulated;
  const [given] = await hostOffsets(simulated, [0]);
  const hold = device.hold(({ kind, offset }) => kind === 'write' && offset === given);
  const slow = simulated.ask(1, { kind: 'write', sector: 0, count: 1 });
  await device.drive(hold.meeting());
  await simulated.alone(0, whole('discard', 0));
  await simulated.alone(0, { kind: 'flush' });
  await simulated.alone(2, whole('write', 5));
  await simulated.alone(2, { kind: 'flush' });
  const [taken] = await hostOffsets(simulated, [5]);
  hold.release();
  await device.drive(slow);
  await simulated.alone(2, whole('read', 5));
  assert.notEqual(taken, given);
  // The slow write has ended: now the cluster may be used again, and is.
  await simulated.alone(0, { kind: 'flush' });
  await simulated.alone(3, whole('write', 6));
  assert.deepEqual(await hostOffsets(simulated, [6]), [given]);
  await simulated.closeAndJudge();
});

test('slow read of a discarded and reused cluster: it finds what was there', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, { ...disk, before: written });
  const { device } = simulated;
  const [given] = await hostOffsets(simulated, [0]);
  const hold = device.hold(({ kind, offset }) => kind === 'read' && offset === given);
  const slow = simulated.ask(1, whole('read', 0));
  await device.drive(hold.meeting());
  await simulated.alone(0, whole('discard', 0));
  await simulated.alone(0, { kind: 'flush' });
  await simulated.alone(2, whole('write', 5));
  hold.release();
  await device.drive(slow);
  await simulated.closeAndJudge();
});

for (const at of ['effect', 'answer'] as const) {
  test(`late punch: nobody has the cluster before the punch's ${at}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const simulated = await SimulatedDisk.open(t, { ...disk, before: written });
    const { device } = simulated;
    const [given] = await hostOffsets(simulated, [0]);
    await simulated.alone(0, whole('discard', 0));
    const hold = device.hold(({ kind }) => kind === 'discard', at);
    const flush = simulated.ask(0, { kind: 'flush' });
    await device.drive(hold.meeting());
    await simulated.alone(2, whole('write', 5));
    await simulated.alone(2, whole('write', 6));
    assert.ok(!(await hostOffsets(simulated, [5, 6])).includes(given));
    hold.release();
    await device.drive(flush);
    await simulated.alone(3, whole('write', 7));
    assert.deepEqual(await hostOffsets(simulated, [7]), [given]);
    await simulated.closeAndJudge();
  });
}

test('late punch: a cluster that somebody counts again is not punched', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  if (!codecsCanBeChosen()) {
    t.skip('without the addon, codecs answer when they like');
    return;
  }
  // Several compressed clusters share a host cluster; only the last of them to go frees it.
  const before = [0, 1, 2].map((cluster) => whole('compress', cluster));
  const simulated = await SimulatedDisk.open(t, { ...disk, before });
  await simulated.alone(0, whole('discard', 0));
  const hold = simulated.device.hold(({ kind }) => kind === 'discard');
  await simulated.alone(0, { kind: 'flush' });
  assert.equal(hold.met, 0);
  hold.release();
  await simulated.alone(1, whole('read', 1));
  await simulated.alone(1, whole('read', 2));
  await simulated.closeAndJudge();
});

test('discard against flush against allocate: nothing is reused before its removal is durable', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, { ...disk, before: written });
  const { device } = simulated;
  const [given] = await hostOffsets(simulated, [0]);
  // The round copies its slices, and what is discarded then has to wait for the next one.
  await simulated.alone(0, whole('write', 8));
  const hold = device.hold(({ kind }) => kind === 'flush');
  const flush = simulated.ask(0, { kind: 'flush' });
  await device.drive(hold.meeting());
  await simulated.alone(0, whole('discard', 0));
  hold.release();
  await device.drive(flush);
  await simulated.alone(2, whole('write', 5));
  assert.ok(!(await hostOffsets(simulated, [5])).includes(given));
  await simulated.powerCut(() => true)();
  await simulated.alone(0, { kind: 'flush' });
  await simulated.alone(3, whole('write', 6));
  assert.deepEqual(await hostOffsets(simulated, [6]), [given]);
  await simulated.closeAndJudge();
});
