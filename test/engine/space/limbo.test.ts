/** Epochs, limbo and the gate: what may be reused, and when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ControlWord, allocateControlBlock } from '../../../src/engine/words/control-block.js';
import { closeEpoch, oldestEpoch } from '../../../src/engine/queues/epochs.js';
import { QueueGate, gateClosed, runAlone } from '../../../src/engine/queues/gate.js';
import { Limbo, type LimboEntry, allocateLimbo } from '../../../src/engine/space/limbo.js';
import { takeQueueLine } from '../../../src/engine/queues/queue-line.js';
import { SharedWords } from '../../../src/engine/words/shared-words.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

function newControl(): SharedWords {
  return new SharedWords(allocateControlBlock());
}

function newGate(control: SharedWords): QueueGate {
  return new QueueGate(control, takeQueueLine(control));
}

test('the oldest epoch is that of the oldest request of any queue', () => {
  const control = newControl();
  const [one, two] = [newGate(control), newGate(control)];
  assert.equal(oldestEpoch(control), control.load(ControlWord.epoch));
  const first = one.tryEnter();
  closeEpoch(control);
  const second = two.tryEnter();
  const third = one.tryEnter();
  assert.deepEqual([first, second, third], [0, 2, 2]);
  assert.equal(oldestEpoch(control), 0);
  one.leave(first);
  assert.equal(oldestEpoch(control), second);
  one.leave(third);
  two.leave(second);
  assert.equal(oldestEpoch(control), control.load(ControlWord.epoch));
});

test('a request that ends before an older one does not hide it', () => {
  const control = newControl();
  const queue = newGate(control);
  const first = queue.tryEnter();
  closeEpoch(control);
  queue.leave(queue.tryEnter());
  assert.equal(oldestEpoch(control), first);
  queue.leave(first);
  assert.equal(oldestEpoch(control), control.load(ControlWord.epoch));
});

test('epochs wrap', () => {
  const control = newControl();
  control.store(ControlWord.epoch, 0x7ffffffe);
  const queue = newGate(control);
  const before = queue.tryEnter();
  assert.equal(closeEpoch(control), 0x7ffffffe);
  const after = queue.tryEnter();
  assert.equal(after, -0x80000000);
  assert.equal(oldestEpoch(control), before);
  queue.leave(before);
  assert.equal(oldestEpoch(control), after);
  const limbo = new Limbo(allocateLimbo());
  limbo.add({ cluster: 1, count: 1, epoch: before, round: 0x7fffffff, punch: false });
  assert.equal(limbo.takeReleasable(before, -0x80000000).length, 0);
  assert.equal(limbo.takeReleasable(after, -0x80000000).length, 1);
});

test('clusters leave limbo only past both gates', () => {
  const limbo = new Limbo(allocateLimbo());
  const entry = { cluster: 5, count: 2, epoch: 3, round: 2, punch: false };
  limbo.add(entry);
  assert.deepEqual(limbo.takeReleasable(3, 9), [], 'a request of the same epoch still runs');
  assert.deepEqual(limbo.takeReleasable(9, 1), [], 'the removal is not durable');
  assert.equal(limbo.clusters, 2);
  assert.deepEqual(limbo.takeReleasable(4, 2), [entry]);
  assert.equal(limbo.clusters, 0);
});

test('an exclusive operation runs alone, and requests wait for it', async () => {
  const control = newControl();
  const queue = newGate(control);
  const running = queue.tryEnter();
  const order: string[] = [];
  const alone = runAlone(control, () => {
    order.push('alone');
    assert.equal(queue.tryEnter(), gateClosed);
    return Promise.resolve();
  });
  const late = queue.enter().then((epoch) => {
    order.push('late');
    queue.leave(epoch);
  });
  order.push('running ends');
  queue.leave(running);
  await Promise.all([alone, late]);
  assert.deepEqual(order, ['running ends', 'alone', 'late']);
});

test('limbo is shared, keeps its order, and grows', (t) => {
  t.diagnostic(`seed ${seed}`);
  const step = fc.record({ add: fc.nat(2000), take: fc.boolean(), from: fc.constantFrom(0, 1) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const memory = allocateLimbo();
      const views = [new Limbo(memory), new Limbo(memory)];
      const expected: LimboEntry[] = [];
      let epoch = 0;
      for (const { add, take, from } of steps) {
        for (let index = 0; index < add; index++, epoch += 2) {
          const cluster = 2 ** 44 - 1 - epoch;
          const entry = {
            cluster,
            count: 1 + (epoch % 7),
            epoch,
            round: 0,
            punch: epoch % 4 === 0,
          };
          views[from].add(entry);
          expected.push(entry);
        }
        if (take) {
          const until = expected[Math.floor(expected.length / 2)]?.epoch ?? 0;
          const due = expected.filter((entry) => entry.epoch < until);
          assert.deepEqual(views[1 - from].takeReleasable(until, 0), due);
          expected.splice(0, due.length);
        }
        const clusters = expected.reduce((sum, { count }) => sum + count, 0);
        assert.equal(views[from].clusters, clusters);
        assert.deepEqual(views[1 - from].entries(), expected);
      }
    }),
    { seed, numRuns: 30 },
  );
});

test('limbo uses all of its memory before it gives anything up', () => {
  const limbo = new Limbo(allocateLimbo());
  const entry = (cluster: number): LimboEntry => ({
    cluster,
    count: 1,
    epoch: cluster * 2,
    round: 0,
    punch: false,
  });
  const most = Math.floor((16 * 2 ** 20) / 20) - 1;
  // Taken out early, so that each growth finds the ring begun in the midst of the memory.
  const taken = 100;
  for (let cluster = 0; cluster < most + taken; cluster++) {
    limbo.add(entry(cluster));
    if (cluster === taken) assert.equal(limbo.takeReleasable(2 * taken, 0).length, taken);
  }
  assert.equal(limbo.clusters, most);
  const left = limbo.takeReleasable(2 * (most + taken), 0);
  assert.equal(left.length, most);
  assert.ok(left.every(({ cluster }, index) => cluster === taken + index));
});

test('the end of a request costs the same however many removals one that stalls has seen', () => {
  const control = newControl();
  const queue = newGate(control);
  const stalled = queue.tryEnter();
  const epochs: number[] = [];
  for (let removal = 0; removal < 200_000; removal++) {
    closeEpoch(control);
    epochs.push(queue.tryEnter());
  }
  const begun = performance.now();
  // The youngest first: a search from the oldest on would look at all of them each time.
  for (const epoch of epochs.reverse()) queue.leave(epoch);
  assert.ok(performance.now() - begun < 5000);
  assert.equal(oldestEpoch(control), stalled);
  queue.leave(stalled);
  assert.equal(oldestEpoch(control), control.load(ControlWord.epoch));
});
