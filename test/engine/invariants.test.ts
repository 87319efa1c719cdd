/** What can only be a mistake of the engine's own is met where it is made, before it does harm. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClaimMarks } from '../../src/engine/cache/claim-marks.js';
import {
  ControlWord,
  QueueWord,
  allocateControlBlock,
  queueWord,
} from '../../src/engine/words/control-block.js';
import { closeEpoch } from '../../src/engine/queues/epochs.js';
import { QueueGate, closeGate, gateClosed, openGate } from '../../src/engine/queues/gate.js';
import { allocateMembers, leave } from '../../src/engine/queues/members.js';
import { releaseMutexWord, takeMutexWord } from '../../src/engine/words/mutex-word.js';
import { releaseQueueLine, takeQueueLine } from '../../src/engine/queues/queue-line.js';
import { SharedWords } from '../../src/engine/words/shared-words.js';
import { SliceCache, allocateSliceCache } from '../../src/engine/cache/slice-cache.js';
import {
  lockExclusive,
  lockShared,
  unlockExclusive,
  unlockShared,
} from '../../src/engine/words/spin-word.js';
import { Arena, type ReservedRun } from '../../src/engine/space/arena.js';
import { Limbo, allocateLimbo } from '../../src/engine/space/limbo.js';
import { UnderWay } from '../../src/engine/queues/under-way.js';

function newWords(): SharedWords {
  return new SharedWords(new Int32Array(new SharedArrayBuffer(64)));
}

function newGate(): { control: SharedWords; gate: QueueGate } {
  const control = new SharedWords(allocateControlBlock());
  return { control, gate: new QueueGate(control, takeQueueLine(control)) };
}

test('a gate is not left twice', () => {
  const { gate } = newGate();
  const epoch = gate.tryEnter();
  const other = gate.tryEnter();
  gate.leave(epoch);
  gate.leave(other);
  assert.throws(() => {
    gate.leave(epoch);
  }, /no request of this epoch is under way/);
});

test('a request of one epoch does not end twice while one of another is under way', () => {
  const { control, gate } = newGate();
  const oldest = gate.tryEnter();
  closeEpoch(control);
  const ended = gate.tryEnter();
  closeEpoch(control);
  const youngest = gate.tryEnter();
  gate.leave(ended);
  assert.throws(() => {
    gate.leave(ended);
  }, /a request has ended that was not under way/);
  gate.leave(oldest);
  gate.leave(youngest);
});

test('an epoch is known to its queue', () => {
  const { control, gate } = newGate();
  const epoch = gate.tryEnter();
  for (const unknown of [epoch - 2, epoch + 2, 1, NaN]) {
    assert.throws(() => {
      gate.leave(unknown);
    }, /no request of this epoch is under way/);
  }
  assert.equal(control.load(ControlWord.gate), 0);
  gate.leave(epoch);
});

test('a claim is made once and ends once', () => {
  const claims = new ClaimMarks(new Int32Array(ClaimMarks.allocate(1, 64)), 1);
  claims.add(0, 30, 4);
  assert.throws(() => {
    claims.add(0, 33, 2);
  }, /claimed twice/);
  claims.remove(0, 30, 4);
  assert.throws(() => {
    claims.remove(0, 31, 1);
  }, /that nobody holds/);
});

test('counts do not fall below zero', () => {
  const under = new UnderWay();
  under.begin();
  under.end();
  assert.throws(() => {
    under.end();
  }, /was not under way/);

  const members = new SharedWords(allocateMembers());
  assert.equal(leave(members), true);
  assert.throws(() => leave(members), /more members leave/);

  const cache = new SliceCache(allocateSliceCache(1, 512), () => 0);
  cache.pin(0);
  cache.unpin(0);
  assert.throws(() => {
    cache.unpin(0);
  }, /nobody has pinned/);
});

test('what is locked is given back once, by whoever holds it so', async () => {
  const words = newWords();
  lockShared(words, 0);
  assert.throws(() => {
    unlockExclusive(words, 0);
  }, /nobody holds for writing/);
  lockExclusive(words, 1);
  assert.throws(() => {
    unlockShared(words, 1);
  }, /nobody holds for reading/);
  assert.throws(() => {
    unlockShared(words, 2);
  }, /nobody holds for reading/);
  await takeMutexWord(words, 3);
  releaseMutexWord(words, 3);
  assert.throws(() => {
    releaseMutexWord(words, 3);
  }, /a mutex is given back that nobody holds/);
});

test('a gate is opened by whoever has closed it', async () => {
  const { control, gate } = newGate();
  assert.throws(() => {
    openGate(control);
  }, /nobody has closed/);
  await closeGate(control);
  assert.equal(gate.tryEnter(), gateClosed);
  openGate(control);
  gate.leave(gate.tryEnter());
});

test('a queue does not leave while a request of it is under way', () => {
  const control = new SharedWords(allocateControlBlock());
  const line = takeQueueLine(control);
  const gate = new QueueGate(control, line);
  const epoch = gate.tryEnter();
  assert.throws(() => {
    releaseQueueLine(control, line);
  }, /has requests under way/);
  gate.leave(epoch);
  releaseQueueLine(control, line);
});

test('an arena reserves something, and forgets nothing that it has', async () => {
  const memory = new SharedWords(allocateControlBlock());
  const line = takeQueueLine(memory);
  let length = 0;
  const reserve = (): Promise<ReservedRun> => {
    // As if somebody had given clusters back meanwhile.
    memory.store(queueWord(line, QueueWord.reservedTaken), 0);
    return Promise.resolve({ cluster: 10, length, knownZero: false });
  };
  const arena = new Arena({ memory, line, clusterSize: 512, diskSize: 1 << 20, reserve });
  await assert.rejects(arena.refill(), /nothing is reserved/);
  length = 4;
  await arena.refill();
  arena.take(4);
  await assert.rejects(arena.refill(), /would be forgotten/);
});

test('limbo takes clusters, and gives what it was given', () => {
  const memory = allocateLimbo();
  const limbo = new Limbo(memory);
  const entry = { cluster: 5, count: 3, epoch: 0, round: 0, punch: false };
  for (const wrong of [
    { ...entry, count: 0 },
    { ...entry, cluster: -1 },
  ]) {
    assert.throws(() => {
      limbo.add(wrong);
    }, /no clusters are given up/);
  }
  limbo.add(entry);
  const words = new Int32Array(memory);
  words[words.indexOf(3, 4)] = 0;
  assert.throws(() => limbo.takeReleasable(2, 1), /torn/);
});
