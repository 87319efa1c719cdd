/**
 * One operation of the device fails, in each place of a workload: the request concerned gets the
 * error, nobody hangs, and once the device works again the image is used, flushed and closed as if
 * nothing had been.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../src/errors.js';
import { needsTool } from '../support/tools.js';
import { lanes, requests } from './requests.js';
import type { Fault } from './simulated-device.js';
import { codecsCanBeChosen } from './simulated-device.js';
import {
  type DiskOptions,
  type Lane,
  type Request,
  SimulatedDisk,
  type Verdict,
  propertyParameters,
  schedules,
} from './simulated-disk.js';

/** Throws again what is not the error of the device. */
function expectInjected(error: unknown): void {
  if (error instanceof CowherdError && error.code === 'ERR_COWHERD_IO') return;
  throw error;
}

/** Requests on what the workload touched, once the device works again. */
const afterwards: Lane = {
  queue: 1,
  requests: [
    { kind: 'read', sector: 0, count: 64 },
    { kind: 'write', sector: 3, count: 20 },
    { kind: 'flush' },
    { kind: 'discard', sector: 8, count: 24 },
    { kind: 'write', sector: 40, count: 9 },
    { kind: 'flush' },
    { kind: 'read', sector: 0, count: 64 },
  ],
};

/** What a sweep runs, and how it judges. */
interface Sweep {
  readonly disk: DiskOptions;
  readonly workload: readonly Lane[];
  /** How many places there are to each one tried; which, the seed decides. */
  readonly stride: number;
  readonly verdict?: Verdict;
  /** What the workload is there for, of the image before it is closed. */
  readonly reached?: (disk: SimulatedDisk) => void;
}

/** Runs a workload with one failure. @returns how many operations could have failed */
async function runWithFault(t: TestContext, sweep: Sweep, fault: Fault): Promise<number> {
  const simulated = await SimulatedDisk.open(t, sweep.disk);
  const { device } = simulated;
  const opened = device.failable;
  device.fault = { ...fault, nth: opened + fault.nth };
  await device.drive(simulated.start(sweep.workload, expectInjected));
  device.fault = undefined;
  const failable = device.failable - opened;
  await simulated.runLanes([afterwards]);
  if (fault.nth === 0) sweep.reached?.(simulated);
  await simulated.closeAndJudge(sweep.verdict);
  return failable;
}

/** A failure in each place, with and without its effect on the device. */
async function run(t: TestContext, sweep: Sweep): Promise<void> {
  if (!needsTool(t, 'qemu-img')) return;
  const places = await runWithFault(t, sweep, { nth: 0, takesEffect: false });
  const { seed, numRuns } = propertyParameters(t, Math.ceil(places / sweep.stride));
  const stride = Math.max(1, Math.floor(places / numRuns));
  const wrong: string[] = [];
  for (let nth = 1 + (seed % stride); nth <= places; nth += stride) {
    for (const takesEffect of [false, true]) {
      await runWithFault(t, sweep, { nth, takesEffect }).catch((error: unknown) => {
        wrong.push(`place ${nth}, ${takesEffect ? 'with' : 'without'} effect: ${String(error)}`);
      });
    }
  }
  assert.deepEqual(wrong, []);
}

const mixed: readonly Lane[] = [
  {
    queue: 0,
    requests: [
      { kind: 'write', sector: 0, count: 3 },
      { kind: 'discard', sector: 16, count: 16 },
      { kind: 'flush' },
      { kind: 'write', sector: 16, count: 8 },
    ],
  },
  {
    queue: 1,
    requests: [
      { kind: 'write', sector: 36, count: 30 },
      { kind: 'zero', sector: 34, count: 9, unmap: true },
      { kind: 'flush' },
      { kind: 'write', sector: 5, count: 6 },
      { kind: 'read', sector: 0, count: 72 },
    ],
  },
];

test('a failing write in each place: above a backing file', async (t) => {
  const image = { clusterSize: 4096 };
  const before: readonly Request[] = [{ kind: 'write', sector: 16, count: 16 }];
  const disk = { image, size: 2 ** 20, queues: 2, backedSectors: 21, before };
  await run(t, { disk, workload: mixed, stride: 2 });
});

test('a failing write in each place: compressed clusters', async (t) => {
  if (!codecsCanBeChosen()) {
    t.skip('without the addon, codecs answer when they like');
    return;
  }
  const image = { clusterSize: 4096 };
  const before: readonly Request[] = [0, 8, 16, 24].map((sector) => {
    return { kind: 'compress', sector, count: 8 };
  });
  const workload: readonly Lane[] = [
    ...mixed,
    { queue: 0, requests: [{ kind: 'compress', sector: 80, count: 8 }, { kind: 'flush' }] },
  ];
  const disk = { image, size: 2 ** 20, queues: 2, before };
  // A place among packed data is not taken back: what follows may be packed into the same cluster.
  await run(t, { disk, workload, stride: 4, verdict: { leaksAllowed: true } });
});

test('a failing write in each place: new refcount blocks, a longer refcount table', async (t) => {
  const image = { clusterSize: 512, refcountBits: 64 };
  const before: readonly Request[] = [{ kind: 'write', sector: 0, count: 3500 }];
  const disk = { image, size: 2 ** 23, queues: 2, before };
  const workload: readonly Lane[] = [
    { queue: 0, requests: [{ kind: 'write', sector: 3500, count: 900 }, { kind: 'flush' }] },
  ];
  const reached = ({ format }: SimulatedDisk): void => {
    assert.ok(format.metadata.refcounts.table.length > 64, 'the refcount table has not grown');
  };
  await run(t, { disk, workload, stride: 12, reached });
});

test('a failing write in each place: closing', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const disk = { image: { clusterSize: 4096 }, size: 2 ** 20, queues: 2, backedSectors: 21 };
  let places = 1;
  for (let nth = 0; nth <= places; nth++) {
    const simulated = await SimulatedDisk.open(t, disk);
    const { device, image } = simulated;
    await simulated.runLanes(mixed);
    await simulated.alone(0, { kind: 'flush' });
    await simulated.alone(1, { kind: 'discard', sector: 16, count: 16 });
    const begun = device.failable;
    if (nth > 0) device.fault = { nth: begun + nth, takesEffect: false };
    await device.drive(image.close().catch(expectInjected));
    if (nth === 0) places = device.failable - begun;
    await simulated.judge({ leaksAllowed: nth > 0 });
  }
  assert.ok(places > 3, 'closing has little to do');
});

test('a failing punch loses neither its cluster nor those after it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: readonly Request[] = [{ kind: 'write', sector: 0, count: 64 }];
  const disk = { image: { clusterSize: 4096 }, size: 2 ** 20, queues: 2, before };
  for (const nth of [1, 2, 3]) {
    const simulated = await SimulatedDisk.open(t, disk);
    const { device } = simulated;
    for (const sector of [0, 16, 32]) {
      await simulated.alone(1, { kind: 'discard', sector, count: 8 });
    }
    let punches = 0;
    const hold = device.hold(({ kind }) => {
      if (kind === 'discard') punches += 1;
      return kind === 'discard' && punches === nth;
    });
    const flush = simulated.ask(1, { kind: 'flush' });
    await device.drive(hold.meeting());
    device.fault = { nth: device.failable + 1, takesEffect: false };
    hold.release();
    await assert.rejects(device.drive(flush), { code: 'ERR_COWHERD_IO' });
    await simulated.closeAndJudge();
  }
});

test('a failing write in each place: any schedule', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const request = requests({
    sectorsPerCluster: 8,
    clusters: [0, 1, 2, 3, 4, 5, 600],
    weights: { write: 6, read: 2, zero: 2, discard: 3, flush: 2 },
  });
  await fc.assert(
    fc.asyncProperty(
      lanes(request, 3),
      fc.record({ nth: fc.integer({ min: 1, max: 80 }), takesEffect: fc.boolean() }),
      schedules,
      async (drawn, fault, order) => {
        const options = { image: { clusterSize: 4096 }, size: 2 ** 22, queues: 3 };
        const simulated = await SimulatedDisk.open(t, { ...options, backedSectors: 21 }, order);
        const { device } = simulated;
        device.fault = { ...fault, nth: device.failable + fault.nth };
        await device.drive(simulated.start(drawn, expectInjected));
        device.fault = undefined;
        await simulated.runLanes([afterwards]);
        await simulated.closeAndJudge();
      },
    ),
    propertyParameters(t, 12),
  );
});

test('a failing barrier: the next round does not take for durable what it left', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: readonly Request[] = [64, 4160].map((sector) => {
    return { kind: 'write', sector, count: 8 };
  });
  const disk = { image: { clusterSize: 4096 }, size: 2 ** 22, queues: 2, before };
  let places = 1;
  for (let nth = 0; nth <= places; nth++) {
    const simulated = await SimulatedDisk.open(t, disk);
    const { device } = simulated;
    await simulated.alone(0, { kind: 'write', sector: 0, count: 8 });
    await simulated.alone(0, { kind: 'write', sector: 4096, count: 16 });
    const begun = device.failable;
    if (nth > 0) device.fault = { nth: begun + nth, takesEffect: false };
    await device.drive(simulated.ask(0, { kind: 'flush' }).catch(expectInjected));
    if (nth === 0) places = device.failable - begun;
    device.fault = undefined;
    const verdicts: (() => Promise<void>)[] = [];
    device.onChoice = () => {
      verdicts.push(simulated.powerCut((index, count) => index === count - 1));
    };
    await simulated.alone(1, { kind: 'flush' });
    device.onChoice = undefined;
    for (const verdict of verdicts) await verdict();
    await simulated.closeAndJudge();
  }
  assert.ok(places > 3, 'the round has little to write');
});

test('a failing write of one slice: the round ends when the others have ended', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: readonly Request[] = [64, 4160].map((sector) => {
    return { kind: 'write', sector, count: 8 };
  });
  const disk = { image: { clusterSize: 4096 }, size: 2 ** 22, queues: 2, before };
  const simulated = await SimulatedDisk.open(t, disk);
  const { device, format } = simulated;
  await simulated.alone(0, { kind: 'write', sector: 0, count: 8 });
  await simulated.alone(0, { kind: 'write', sector: 4096, count: 8 });
  const [slow, failing] = format.metadata.l2Cache.copyDirty().map(({ hostOffset }) => hostOffset);
  let writes = 0;
  const slowWrite = device.hold(({ kind, offset }) => {
    if (kind === 'write' && offset === slow) writes += 1;
    return kind === 'write' && offset === slow && writes === 1;
  });
  const failingWrite = device.hold(({ kind, offset }) => kind === 'write' && offset === failing);
  const laterAnswer = device.hold(
    ({ kind, offset }) => kind === 'write' && offset === slow && writes === 2,
    'answer',
  );
  const first = assert.rejects(simulated.ask(0, { kind: 'flush' }), { code: 'ERR_COWHERD_IO' });
  await device.drive(Promise.all([slowWrite.meeting(), failingWrite.meeting()]));
  device.fault = { nth: device.failable + 1, takesEffect: false };
  failingWrite.release();
  await device.drive(device.chosen('a while', 10));
  // The next round must not write the slice while the first still does: who wins is up to the device.
  await simulated.alone(1, { kind: 'write', sector: 8, count: 8 });
  const second = simulated.ask(1, { kind: 'flush' });
  await device.drive(device.chosen('a while', 60));
  slowWrite.release();
  await device.drive(device.chosen('a while', 10));
  laterAnswer.release();
  await device.drive(Promise.all([first, second]));
  await simulated.closeAndJudge();
});
