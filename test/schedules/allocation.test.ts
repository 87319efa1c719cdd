/** Writers that want the same new cluster or table, and slices that come and go meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CreateOptions } from '../../src/image/api/options.js';
import { needsTool } from '../support/tools.js';
import { lanes, requests } from './requests.js';
import { type Request, SimulatedDisk, propertyParameters, schedules } from './simulated-disk.js';

const small = { image: { clusterSize: 4096 }, size: 64 * 4096, queues: 4 };

const geometries: readonly CreateOptions[] = [
  { clusterSize: 4096 },
  { clusterSize: 512, refcountBits: 64 },
  { clusterSize: 16384, extendedL2: true },
];

for (const image of geometries) {
  test(`two writers on one new cluster: any schedule, ${JSON.stringify(image)}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const clusterSize = image.clusterSize as number;
    const sectorsPerCluster = clusterSize / 512;
    const request = requests({
      sectorsPerCluster,
      clusters: [0, 1, 2, 70],
      weights: { write: 8, zero: 1, discard: 1, read: 2 },
    });
    await fc.assert(
      fc.asyncProperty(
        lanes(request, 4),
        fc.constantFrom(0, 3, 400),
        fc.boolean(),
        schedules,
        async (drawn, backedSectors, zeroInit, order) => {
          const options = { image, size: 128 * clusterSize, queues: 4, backedSectors, zeroInit };
          const simulated = await SimulatedDisk.open(t, options, order);
          await simulated.runLanes(drawn);
          await simulated.closeAndJudge();
        },
      ),
      propertyParameters(t, 10),
    );
  });
}

test('two writers on one new cluster: the second waits and writes in place', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, small);
  const { device } = simulated;
  const hold = device.hold(({ kind, length }) => kind === 'write' && length === 1024);
  const first = simulated.ask(1, { kind: 'write', sector: 0, count: 2 });
  await device.drive(hold.meeting());
  const second = simulated.ask(2, { kind: 'write', sector: 1, count: 3 });
  const third = simulated.ask(3, { kind: 'discard', sector: 0, count: 8 });
  // Another cluster of the same table is nobody's concern.
  await simulated.alone(2, { kind: 'write', sector: 8, count: 8 });
  hold.release();
  await device.drive(Promise.all([first, second, third]));
  await simulated.closeAndJudge();
});

test('two writers on one new cluster: the second takes over when the first fails', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, small);
  const { device } = simulated;
  await simulated.alone(1, { kind: 'write', sector: 80, count: 1 });
  const hold = device.hold(({ kind, length }) => kind === 'write' && length === 1024);
  const first = simulated.ask(1, { kind: 'write', sector: 0, count: 2 });
  await device.drive(hold.meeting());
  const second = simulated.ask(2, { kind: 'write', sector: 4, count: 1 });
  device.fault = { nth: device.failable + 1, takesEffect: true };
  hold.release();
  await assert.rejects(device.drive(first), { code: 'ERR_COWHERD_IO' });
  await device.drive(second);
  // The first writer's bytes have no place in the cluster that the second made.
  await simulated.alone(3, { kind: 'read', sector: 0, count: 8 });
  await simulated.closeAndJudge();
});

test('two writers on one new cluster: a discard waits for the writer of a zero cluster', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: readonly Request[] = [
    { kind: 'write', sector: 0, count: 8 },
    { kind: 'zero', sector: 0, count: 8, unmap: false },
  ];
  const simulated = await SimulatedDisk.open(t, { ...small, before });
  const { device } = simulated;
  // The entry keeps its host cluster, which the discard must not give up while it is written.
  const hold = device.hold(({ kind }) => kind === 'write');
  const write = simulated.ask(1, { kind: 'write', sector: 2, count: 1 });
  await device.drive(hold.meeting());
  const discard = simulated.ask(2, { kind: 'discard', sector: 0, count: 8 });
  await device.drive(device.chosen('a while', 20));
  hold.release();
  await device.drive(Promise.all([write, discard]));
  await simulated.closeAndJudge();
});

test('two writers on one new L2 table: it is made once', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, { ...small, zeroInit: false });
  const { device } = simulated;
  const hold = device.hold(({ kind }) => kind === 'writeZeroes');
  const writes = [0, 1, 2, 3].map((queue) =>
    simulated.ask(queue, { kind: 'write', sector: queue * 8, count: 8 }),
  );
  await device.drive(hold.meeting());
  hold.release();
  await device.drive(Promise.all(writes));
  await simulated.closeAndJudge();
});

/** Slices of this geometry whose number is a multiple of 64 compete for one set of the cache. */
const crowded = { image: { clusterSize: 512 }, size: 24 * 64 * 64 * 512, queues: 3 };
const sectorsBetween = 64 * 64;

function inSlice(index: number, kind: 'write' | 'read', entry = 0): Request {
  return { kind, sector: index * sectorsBetween + entry, count: 1 };
}

test('eviction against load: any schedule', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const request = requests({
    sectorsPerCluster: 1,
    clusters: Array.from({ length: 42 }, (_, index) => {
      return (index >> 1) * sectorsBetween + (index & 1);
    }),
    weights: { write: 5, read: 6, discard: 1, zero: 1, flush: 1 },
  });
  const before = Array.from({ length: 12 }, (_, index) => inSlice(index, 'write'));
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          queue: fc.nat(2),
          requests: fc.array(request, { minLength: 5, maxLength: 20 }),
        }),
        { minLength: 2, maxLength: 6 },
      ),
      schedules,
      async (drawn, order) => {
        const simulated = await SimulatedDisk.open(t, { ...crowded, before }, order);
        await simulated.runLanes(drawn);
        await simulated.closeAndJudge();
      },
    ),
    propertyParameters(t, 12),
  );
});

test('eviction against load: a slice that changes while it is written back stays', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before = Array.from({ length: 12 }, (_, index) => inSlice(index, 'write'));
  const simulated = await SimulatedDisk.open(t, { ...crowded, before });
  const { device } = simulated;
  // A whole set of dirty slices: the next one that is wanted makes a flush write them back.
  for (let index = 0; index < 8; index++) await simulated.alone(1, inSlice(index, 'write', 1));
  const metadata = simulated.format.metadata;
  const slices = metadata.l2Cache.copyDirty().map(({ hostOffset }) => hostOffset);
  assert.equal(slices.length, 8);
  const hold = device.hold(({ kind, offset }) => kind === 'write' && slices.includes(offset));
  const ninth = simulated.ask(2, inSlice(8, 'read'));
  await device.drive(hold.meeting());
  // The copies are on their way; each slice changes again before it counts as clean.
  for (let index = 0; index < 8; index++) await simulated.alone(1, inSlice(index, 'write', 2));
  hold.release();
  await device.drive(ninth);
  for (let index = 8; index < 20; index++) await simulated.alone(2, inSlice(index, 'read'));
  for (let index = 0; index < 8; index++) {
    await simulated.alone(0, { kind: 'read', sector: index * sectorsBetween, count: 3 });
  }
  await simulated.closeAndJudge();
});

test('eviction against load: readers that share a load that fails ask again', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before = [inSlice(0, 'write'), inSlice(1, 'write')];
  const simulated = await SimulatedDisk.open(t, { ...crowded, before });
  const { device } = simulated;
  const hold = device.hold(({ kind, length }) => kind === 'read' && length === 512);
  const loading = simulated.ask(1, inSlice(0, 'read'));
  await device.drive(hold.meeting());
  const sharing = simulated.ask(2, inSlice(0, 'read'));
  device.fault = { nth: device.failable + 1, takesEffect: false };
  hold.release();
  await assert.rejects(device.drive(loading), { code: 'ERR_COWHERD_IO' });
  await device.drive(sharing);
  await simulated.closeAndJudge();
});
