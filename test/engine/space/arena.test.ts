import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena, type Reserve } from '../../../src/engine/space/arena.js';
import { allocateControlBlock } from '../../../src/engine/words/control-block.js';
import {
  heldByQueues,
  takeQueueLine,
  takeReserved,
} from '../../../src/engine/queues/queue-line.js';
import { SharedWords } from '../../../src/engine/words/shared-words.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

const clusterSize = 65536;

function newArena(reserve: Reserve, diskSize = 2 ** 40): { arena: Arena; memory: SharedWords } {
  const memory = new SharedWords(allocateControlBlock());
  const line = takeQueueLine(memory);
  return { arena: new Arena({ memory, line, clusterSize, diskSize, reserve }), memory };
}

/** Gives out runs of given lengths, with a gap after each; later ones are of one cluster. */
function reserveRuns(lengths: readonly number[]): {
  reserve: () => Promise<{ cluster: number; length: number; knownZero: boolean }>;
  reserved: Set<number>;
} {
  const reserved = new Set<number>();
  let next = 1;
  let run = 0;
  return {
    reserved,
    reserve: async () => {
      await Promise.resolve();
      const length = lengths[run++] ?? 1;
      const cluster = next;
      for (let each = 0; each < length; each++) reserved.add(cluster + each);
      next += length + 1;
      return { cluster, length, knownZero: false };
    },
  };
}

test('clusters that wait together for one short run get one each, and none that was not reserved', async (t) => {
  t.diagnostic(`seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 12 }),
      fc.integer({ min: 1, max: 20 }),
      async (lengths, takers) => {
        const { reserve, reserved } = reserveRuns(lengths);
        const { arena } = newArena(reserve);
        const taken = await Promise.all(Array.from({ length: takers }, () => arena.obtain()));
        const clusters = taken.map(({ cluster }) => cluster);
        assert.equal(new Set(clusters).size, takers, 'a cluster was handed out twice');
        for (const cluster of clusters) assert.ok(reserved.has(cluster), `${cluster} is foreign`);
        const left = arena.drain()?.length ?? 0;
        assert.equal(left + takers, reserved.size, 'a reserved cluster was lost');
      },
    ),
    { seed },
  );
});

test('taking more than is reserved is refused, and takes nothing', async () => {
  const { reserve } = reserveRuns([2]);
  const { arena } = newArena(reserve);
  assert.throws(() => arena.take(1), /not reserved/);
  await arena.refill();
  assert.throws(() => arena.take(3), /not reserved/);
  assert.throws(() => arena.take(0), /not reserved/);
  assert.equal(arena.available, 2);
});

test('an arena shares refills, and gives the rest back', async () => {
  let next = 100;
  const reserved: number[] = [];
  const { arena, memory } = newArena((wanted) => {
    reserved.push(wanted);
    const cluster = next;
    next += wanted;
    return Promise.resolve({ cluster, length: wanted, knownZero: true });
  });
  await Promise.all([arena.refill(), arena.refill()]);
  assert.equal(reserved.length, 1);
  assert.equal(arena.take(1), 100);
  assert.equal(arena.take(1), 101);
  const rest = { cluster: 102, length: reserved[0] - 2 };
  assert.deepEqual(heldByQueues(memory), [rest]);
  assert.deepEqual(arena.drain(), rest);
  assert.equal(arena.available, 0);
  assert.deepEqual(heldByQueues(memory), []);
});

test('what is left of an arena can be taken away by others, and is then refilled', async () => {
  const { reserve } = reserveRuns([5, 3]);
  const { arena, memory } = newArena(reserve);
  await arena.refill();
  arena.take(2);
  assert.deepEqual(takeReserved(memory), [{ cluster: 3, length: 3 }]);
  assert.equal(arena.available, 0);
  assert.throws(() => arena.take(1), /not reserved/);
  assert.equal((await arena.obtain()).cluster, 7);
});

test('arenas hold no more than a part of the disk, and share it among the queues', async () => {
  const wants: number[] = [];
  const reserve: Reserve = (wanted) => {
    wants.push(wanted);
    return Promise.resolve({ cluster: 1, length: 1, knownZero: false });
  };
  const { arena, memory } = newArena(reserve, 64 * 1024 * 1024);
  for (let line = 0; line < 3; line++) takeQueueLine(memory);
  for (let time = 0; time < 12; time++) await arena.obtain();
  assert.equal(Math.max(...wants), (64 * 1024 * 1024) / 32 / 4 / clusterSize);
  const tiny = newArena(reserve, 512);
  await tiny.arena.obtain();
  assert.equal(wants.at(-1), 1);
});

test('what is said to be needed is reserved so many clusters at a time, but no more than is sensible', async () => {
  const wants: number[] = [];
  const reserve: Reserve = (wanted) => {
    wants.push(wanted);
    return Promise.resolve({ cluster: 1, length: 1, knownZero: false });
  };
  const { arena } = newArena(reserve, 64 * 1024 * 1024);
  arena.expect(300);
  await arena.obtain();
  arena.expect(200);
  await arena.obtain();
  arena.expect(Number.MAX_SAFE_INTEGER);
  await arena.obtain();
  assert.deepEqual(wants, [300, 300, (128 * 1024 * 1024) / clusterSize]);
});

test('what lies in front of the rest comes back to it, of this reservation or one before', async () => {
  let next = 100;
  const lengths = [10, 20];
  const known = [false, true];
  const reserve: Reserve = () => {
    const length = lengths.shift()!;
    next += length;
    return Promise.resolve({ cluster: next - length, length, knownZero: known.shift()! });
  };
  const { arena } = newArena(reserve);
  await arena.refill();
  const first = { cluster: arena.take(10), length: 10, knownZero: false };
  await arena.refill();
  assert.ok(arena.knownZero);
  const second = { cluster: arena.take(5), length: 5, knownZero: true };
  assert.ok(!arena.giveBack({ ...first, length: 9 }), 'there is one between');
  assert.ok(!arena.giveBack({ cluster: 102, length: 8 + 3, knownZero: false }));
  assert.ok(arena.giveBack(second));
  assert.ok(arena.giveBack({ cluster: 104, length: 6, knownZero: false }));
  assert.deepEqual([arena.available, arena.knownZero], [26, false]);
  assert.equal(arena.take(26), 104);
  assert.ok(arena.giveBack({ cluster: 104, length: 26, knownZero: false }));
  assert.deepEqual(arena.drain(), { cluster: 104, length: 26 });
});
