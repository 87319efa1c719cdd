/** Exclusive operations and closing, while requests of several queues are under way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ControlWord, GateState } from '../../src/engine/words/control-block.js';
import { runAlone } from '../../src/engine/queues/gate.js';
import { CowherdError } from '../../src/errors.js';
import { needsTool } from '../support/tools.js';
import { lanes, requests } from './requests.js';
import { type Request, SimulatedDisk, propertyParameters, schedules } from './simulated-disk.js';

const clusterSize = 4096;
const disk = { image: { clusterSize }, size: 1024 * clusterSize, queues: 4 };

function choice(
  weights: Readonly<Partial<Record<Request['kind'], number>>>,
): fc.Arbitrary<Request> {
  const clusters = [0, 1, 2, 600];
  return requests({ sectorsPerCluster: clusterSize / 512, clusters, weights });
}

/** Takes the error of a request whose queue was closed before it began; throws others again. */
function expectClosed(error: unknown): void {
  if (error instanceof CowherdError && error.code === 'ERR_COWHERD_CLOSED') return;
  throw error;
}

test('gate against everything: any schedule', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const request = choice({ write: 6, read: 3, zero: 2, discard: 3 });
  await fc.assert(
    fc.asyncProperty(
      lanes(request, 4),
      fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 2 }),
      schedules,
      async (drawn, operations, order) => {
        const simulated = await SimulatedDisk.open(t, disk, order);
        const { device, format } = simulated;
        let inside = 0;
        const section = async (): Promise<void> => {
          inside += 1;
          const { begun } = device;
          for (let look = 0; look < 10; look++) {
            assert.equal(device.underWay, 0, 'a request is on its way through the gate');
            assert.equal(device.begun, begun, 'a request has passed the gate');
            assert.equal(inside, 1, 'two exclusive operations run at once');
            await device.chosen('inside the gate');
          }
          inside -= 1;
        };
        const exclusive = operations.map(async (times) => {
          for (let time = 0; time < times; time++) {
            await device.chosen('exclusive operation');
            await runAlone(format.metadata.control, section);
          }
        });
        await device.drive(Promise.all([simulated.start(drawn), ...exclusive]));
        await simulated.closeAndJudge();
      },
    ),
    propertyParameters(t, 12),
  );
});

test('gate against everything: a check meanwhile finds no corruption', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const request = choice({ write: 6, read: 2, zero: 2, discard: 3, flush: 2 });
  await fc.assert(
    fc.asyncProperty(lanes(request, 4), schedules, async (drawn, order) => {
      const simulated = await SimulatedDisk.open(t, disk, order);
      const { device, image } = simulated;
      const check = async (): Promise<void> => {
        for (let time = 0; time < 2; time++) {
          await device.chosen('check');
          assert.equal((await image.check()).corruptions, 0);
        }
      };
      await device.drive(Promise.all([simulated.start(drawn), check()]));
      await simulated.closeAndJudge();
    }),
    propertyParameters(t, 10),
  );
});

test('close against in-flight: any schedule', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const request = choice({ write: 6, read: 3, zero: 2, discard: 3, flush: 2 });
  await fc.assert(
    fc.asyncProperty(
      lanes(request, 4),
      fc.subarray([1, 2, 3]),
      fc.integer({ min: 0, max: 60 }),
      schedules,
      async (drawn, closing, delay, order) => {
        const simulated = await SimulatedDisk.open(t, disk, order);
        const { device, image } = simulated;
        const queues = closing.map(async (queue) => {
          await device.chosen(`close of queue ${queue}`, delay);
          await simulated.closable(queue).close();
        });
        const whole = async (): Promise<void> => {
          await device.chosen('close', delay + 10);
          await image.close();
          assert.equal(device.underWay, 0, 'the image is closed with requests under way');
        };
        const users = simulated.start(drawn, expectClosed);
        await device.drive(Promise.all([users, whole(), ...queues]));
        await simulated.judge();
      },
    ),
    propertyParameters(t, 16),
  );
});

test('close against in-flight: each request ends before its queue', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: Request[] = [
    { kind: 'write', sector: 0, count: 8 },
    { kind: 'write', sector: 64, count: 8 },
  ];
  const simulated = await SimulatedDisk.open(t, { ...disk, before });
  const { device, image } = simulated;
  const hold = device.hold(({ kind }) => kind === 'read' || kind === 'write');
  const ended: string[] = [];
  const note = (what: string) => (): void => {
    ended.push(what);
  };
  const requests = [
    simulated.ask(1, { kind: 'write', sector: 0, count: 1 }).then(note('request')),
    simulated.ask(2, { kind: 'discard', sector: 64, count: 8 }).then(note('request')),
    simulated.ask(3, { kind: 'write', sector: 256, count: 3 }).then(note('request')),
    simulated.ask(0, { kind: 'read', sector: 0, count: 8 }).then(note('request')),
  ];
  await device.drive(hold.meeting());
  const closing = image.close().then(note('close'));
  await assert.rejects(simulated.ask(1, { kind: 'flush' }), { code: 'ERR_COWHERD_CLOSED' });
  hold.release();
  await device.drive(Promise.all([closing, ...requests]));
  assert.equal(ended.indexOf('close'), requests.length);
  await simulated.judge();
});

test('close against in-flight: clusters that are being reclaimed are waited for', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const before: Request[] = [{ kind: 'write', sector: 0, count: 8 }];
  const simulated = await SimulatedDisk.open(t, { ...disk, before });
  const { device, image } = simulated;
  await simulated.alone(1, { kind: 'write', sector: 64, count: 8 });
  await simulated.alone(1, { kind: 'discard', sector: 0, count: 8 });
  const barrier = device.hold(({ kind }) => kind === 'flush');
  const punch = device.hold(({ kind }) => kind === 'discard');
  const growth = device.hold(({ kind }) => kind === 'truncate');
  const flush = simulated.ask(1, { kind: 'flush' });
  await device.drive(barrier.meeting());
  // Another queue's reservation keeps the arena of the closing one from going back at once.
  const write = simulated.ask(2, { kind: 'write', sector: 128, count: 8 });
  await device.drive(growth.meeting());
  const closing = simulated.closable(1).close();
  barrier.release();
  await device.drive(punch.meeting());
  growth.release();
  await device.drive(write);
  const whole = image.close();
  await device.drive(device.chosen('later', 60));
  punch.release();
  await device.drive(Promise.all([closing, flush, whole]));
  await simulated.judge();
});

test('close against in-flight: the image waits for a queue that is being closed', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const simulated = await SimulatedDisk.open(t, disk);
  const { device, image } = simulated;
  let closes = 0;
  const hold = device.hold(({ kind }) => kind === 'close' && closes++ === 0);
  const queue = simulated.closable(1).close();
  await device.drive(hold.meeting());
  let closed = false;
  const whole = image.close().then(() => {
    closed = true;
  });
  await device.drive(device.chosen('a while', 30));
  assert.ok(!closed);
  hold.release();
  await device.drive(Promise.all([queue, whole]));
  await simulated.judge();
});

test('removals side by side close the gate together, not each by itself', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const clusters = Array.from({ length: 200 }, (_, cluster) => cluster * 2);
  const before: readonly Request[] = [{ kind: 'write', sector: 0, count: 400 * 8 }];
  const simulated = await SimulatedDisk.open(t, { ...disk, before });
  const { device, format } = simulated;
  const exchange = t.mock.method(format.metadata.control, 'compareExchange');
  await simulated.alone(2, { kind: 'read', sector: 8, count: 8 });
  // What began before them keeps what they remove in limbo.
  const hold = device.hold(({ kind }) => kind === 'read');
  const slow = simulated.ask(2, { kind: 'read', sector: 8, count: 8 });
  await device.drive(hold.meeting());
  const removals = clusters.map((cluster) =>
    simulated.ask(1, { kind: 'zero', sector: cluster * 8, count: 8, unmap: true }),
  );
  await device.drive(device.chosen('a while', 1000));
  hold.release();
  await device.drive(Promise.all([slow, ...removals]));
  const closings = exchange.mock.calls.filter(
    ({ arguments: [index, , value], result }) =>
      index === ControlWord.gate && value === GateState.closed && result === GateState.open,
  );
  assert.ok(closings.length < 10, `${closings.length} closings`);
  await simulated.closeAndJudge();
});
