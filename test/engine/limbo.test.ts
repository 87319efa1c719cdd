/** Epochs, limbo, the gate and arenas: what may be reused, and when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../src/engine/arena.js';
import { allocateControlBlock, idleEpoch } from '../../src/engine/control-block.js';
import { closeEpoch, oldestEpoch } from '../../src/engine/epochs.js';
import { QueueGate, runAlone } from '../../src/engine/gate.js';
import { Limbo } from '../../src/engine/limbo.js';

test('the oldest epoch is that of the oldest request of any queue', () => {
  const control = allocateControlBlock();
  const [one, two] = [new QueueGate(control), new QueueGate(control)];
  assert.equal(oldestEpoch(control), idleEpoch);
  const first = one.tryEnter();
  closeEpoch(control);
  const second = two.tryEnter();
  const third = one.tryEnter();
  assert.deepEqual([first, second, third], [0, 1, 1]);
  assert.equal(oldestEpoch(control), 0);
  one.leave(first);
  assert.equal(oldestEpoch(control), 1);
  one.leave(third);
  two.leave(second);
  assert.equal(oldestEpoch(control), idleEpoch);
});

test('a request that ends before an older one does not hide it', () => {
  const control = allocateControlBlock();
  const queue = new QueueGate(control);
  const first = queue.tryEnter();
  closeEpoch(control);
  queue.leave(queue.tryEnter());
  assert.equal(oldestEpoch(control), first);
  queue.leave(first);
  assert.equal(oldestEpoch(control), idleEpoch);
});

test('clusters leave limbo only past both gates', () => {
  const limbo = new Limbo();
  const entry = { cluster: 5, count: 2, epoch: 3, round: 2, punch: false };
  limbo.add(entry);
  assert.deepEqual(limbo.takeReleasable(3, 9), [], 'a request of the same epoch still runs');
  assert.deepEqual(limbo.takeReleasable(9, 1), [], 'the removal is not durable');
  assert.equal(limbo.clusters, 2);
  assert.deepEqual(limbo.takeReleasable(4, 2), [entry]);
  assert.equal(limbo.clusters, 0);
});

test('an exclusive operation runs alone, and requests wait for it', async () => {
  const control = allocateControlBlock();
  const queue = new QueueGate(control);
  const running = queue.tryEnter();
  const order: string[] = [];
  const alone = runAlone(control, () => {
    order.push('alone');
    assert.equal(queue.tryEnter(), -1);
    return Promise.resolve();
  });
  const late = queue.enter().then((epoch) => {
    order.push('late');
    queue.leave(epoch);
  });
  order.push('running ends');
  queue.leave(running);
  // `waitAsync` alone does not keep the process alive.
  const alive = setInterval(() => undefined, 10);
  await Promise.all([alone, late]);
  clearInterval(alive);
  assert.deepEqual(order, ['running ends', 'alone', 'late']);
});

test('an arena hands out runs in order, shares refills, and gives the rest back', async () => {
  let next = 100;
  const reserved: number[] = [];
  const arena = new Arena((wanted) => {
    reserved.push(wanted);
    const cluster = next;
    next += wanted;
    return Promise.resolve({ cluster, length: wanted, knownZero: true });
  }, 65536);
  await Promise.all([arena.refill(), arena.refill()]);
  assert.equal(reserved.length, 1);
  assert.equal(arena.take(1), 100);
  assert.equal(arena.take(1), 101);
  arena.giveBack(100, 1);
  assert.deepEqual(arena.drain(), [
    { cluster: 100, length: 1, knownZero: false },
    { cluster: 102, length: reserved[0] - 2, knownZero: true },
  ]);
  assert.equal(arena.available, 0);
});
