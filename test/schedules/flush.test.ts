/** Flushes that meet: what each promises is durable when it says so, whoever's round it was. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { CreateOptions } from '../../src/image/api/options.js';
import { needsTool } from '../support/tools.js';
import { lanes, requests } from './requests.js';
import {
  type Request,
  SimulatedDisk,
  powerCuts,
  propertyParameters,
  schedules,
} from './simulated-disk.js';

const clusterSize = 4096;
const sectorsPerCluster = clusterSize / 512;
const disk = { image: { clusterSize }, size: 1024 * clusterSize, queues: 4 };

async function randomRun(
  t: TestContext,
  runs: number,
  image: CreateOptions,
  before: readonly Request[],
  backedSectors = 0,
): Promise<void> {
  if (!needsTool(t, 'qemu-img')) return;
  const size = image.clusterSize as number;
  const request = requests({
    sectorsPerCluster: size / 512,
    clusters: [0, 1, 2, 3, 64, 65, 700],
    weights: { write: 5, zero: 1, discard: 2, flush: 5 },
  });
  await fc.assert(
    fc.asyncProperty(lanes(request, 4), powerCuts, schedules, async (drawn, cuts, order) => {
      const options = { image, size: 1024 * size, queues: 4, before, backedSectors };
      const simulated = await SimulatedDisk.open(t, options, order);
      const verdicts = simulated.cutPower(cuts);
      await simulated.runLanes(drawn);
      await simulated.closeAndJudge();
      await Promise.all(verdicts.map((verdict) => verdict()));
    }),
    propertyParameters(t, runs),
  );
}

test('flush against flush: any schedule, any power cut', async (t) => {
  await randomRun(t, 15, { clusterSize }, []);
});

test('flush against flush: new refcount blocks, a longer refcount table', async (t) => {
  await randomRun(t, 12, { clusterSize: 512, refcountBits: 64 }, []);
});

test('flush against flush: above a backing file', async (t) => {
  await randomRun(t, 10, { clusterSize }, [], 5 * sectorsPerCluster + 3);
});

test('flush against flush: a write that ended during a round is durable after the next', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, disk);
  const { device } = simulated;
  await simulated.alone(0, { kind: 'write', sector: 0, count: 8 });
  const hold = device.hold(({ kind }) => kind === 'flush');
  const first = simulated.ask(0, { kind: 'flush' });
  await device.drive(hold.meeting());
  await simulated.alone(1, { kind: 'write', sector: 8, count: 8 });
  await simulated.alone(2, { kind: 'write', sector: 0, count: 1 });
  const second = simulated.ask(1, { kind: 'flush' });
  const third = simulated.ask(2, { kind: 'flush' });
  hold.release();
  await device.drive(first);
  await device.drive(Promise.all([second, third]));
  // Nothing that no flush covered survives, and nothing else is missing.
  await simulated.powerCut(() => false)();
  assert.equal(simulated.history.afterPowerCut(8)?.size, 1);
  await simulated.closeAndJudge();
});

test('flush against flush: one that fails takes nothing from the other', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, disk);
  const { device } = simulated;
  await simulated.alone(0, { kind: 'write', sector: 0, count: 8 });
  const hold = device.hold(({ kind }) => kind === 'flush');
  const first = simulated.ask(0, { kind: 'flush' });
  await device.drive(hold.meeting());
  const second = simulated.ask(1, { kind: 'flush' });
  device.fault = { nth: device.failable + 1, takesEffect: false };
  hold.release();
  await assert.rejects(device.drive(first), { code: 'ERR_COWHERD_IO' });
  await device.drive(second);
  await simulated.powerCut(() => false)();
  await simulated.closeAndJudge();
});

/** Flushes, with a power cut at each step that keeps of what is unsynced only the last change. */
async function flushUnderPowerCuts(simulated: SimulatedDisk): Promise<void> {
  const verdicts: (() => Promise<void>)[] = [];
  simulated.device.onChoice = () => {
    verdicts.push(simulated.powerCut((index, count) => index === count - 1));
  };
  await simulated.alone(0, { kind: 'flush' });
  simulated.device.onChoice = undefined;
  for (const verdict of verdicts) await verdict();
  await simulated.closeAndJudge();
}

test('flush against flush: counts reach the disk before what they count', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: readonly Request[] = [{ kind: 'write', sector: 64, count: 8 }];
  const simulated = await SimulatedDisk.open(t, { ...disk, before, queues: 1 });
  await simulated.alone(0, { kind: 'write', sector: 0, count: 8 });
  await flushUnderPowerCuts(simulated);
});

for (const image of [{ clusterSize }, { clusterSize: 32768, extendedL2: true }]) {
  test(`flush against flush: an entry reaches the disk after what it points at, ${JSON.stringify(image)}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const options = { ...disk, image, backedSectors: 64, queues: 1 };
    const simulated = await SimulatedDisk.open(t, options);
    await simulated.alone(0, { kind: 'write', sector: 64, count: 8 });
    await simulated.alone(0, { kind: 'flush' });
    // The cluster is counted by now, so this round writes nothing but the slice.
    await simulated.alone(0, { kind: 'write', sector: 3, count: 1 });
    await flushUnderPowerCuts(simulated);
  });
}
