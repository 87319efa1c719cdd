/**
 * Model of limbo's second gate: a cluster is used again only when a flush round has made the removal
 * of its last reference durable.
 */
import assert from 'node:assert/strict';
import { ControlWord } from '../../src/engine/words/control-block.js';
import { closeEpoch, oldestEpoch } from '../../src/engine/queues/epochs.js';
import { FlushRounds } from '../../src/engine/flush/flush-rounds.js';
import { Limbo, allocateLimbo } from '../../src/engine/space/limbo.js';
import { LongMutex } from '../../src/engine/words/long-mutex.js';
import type { Model } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

/** A table of one entry, in memory and on disk. */
const Word = { entry: 100_000, disk: 100_001 } as const;
const { flushMutex, roundsBegun, roundsCompleted } = ControlWord;

/** Copies the entry and writes it. */
function round(memory: ThreadMemory, fails: boolean): Promise<void> {
  const copy = memory.load(Word.entry);
  if (fails) return Promise.reject(new Error('the disk fails'));
  memory.store(Word.disk, copy);
  return Promise.resolve();
}

function newRounds(memory: ThreadMemory, failures = 0): FlushRounds {
  let left = failures;
  const mutex = new LongMutex(memory, flushMutex);
  return new FlushRounds(
    memory,
    mutex,
    () => round(memory, left-- > 0),
    () => undefined,
  );
}

/** Flushes some times, the first of which may fail. */
function flusher(flushes: number, failures = 0): Program {
  return async (memory) => {
    const rounds = newRounds(memory, failures);
    for (let flush = 0; flush < flushes; flush++) {
      await rounds.share().catch((error: unknown) => {
        if (flush >= failures) throw error;
      });
    }
  };
}

type Wanted = (rounds: FlushRounds) => number;

/** Removes the entry, and looks some times whether the cluster may be used again. */
function remover(attempts: number, wanted: Wanted = ({ begun }) => (begun + 1) | 0): Program {
  return (memory) => {
    const rounds = newRounds(memory);
    const limbo = new Limbo(allocateLimbo());
    memory.store(Word.entry, 0);
    const epoch = closeEpoch(memory);
    limbo.add({ cluster: 1, count: 1, epoch, round: wanted(rounds), punch: false });
    for (let attempt = 0; attempt < attempts; attempt++) {
      if (limbo.takeReleasable(oldestEpoch(memory), rounds.completed).length === 0) continue;
      assert.equal(memory.load(Word.disk), 0, 'the disk still has a reference');
    }
  };
}

const model = (threads: Model['threads']): Model => ({
  threads,
  initial: { [Word.entry]: 1, [Word.disk]: 1 },
  names: {
    [Word.entry]: 'entry',
    [Word.disk]: 'disk',
    [flushMutex]: 'mutex',
    [roundsBegun]: 'begun',
    [roundsCompleted]: 'completed',
    [ControlWord.epoch]: 'epoch',
  },
});

testModel('a removal and flushes', model({ remover: remover(2), flusher: flusher(2) }));
testModel(
  'a removal and flushes of two threads',
  model({ remover: remover(1), one: flusher(1), two: flusher(1) }),
);
testModel(
  'a removal and flushes of which the first fails',
  model({ remover: remover(2), flusher: flusher(3, 1) }),
);

testWrongVariant(
  'a removal that waits for the round under way',
  'threw',
  model({ remover: remover(2, ({ begun }) => begun), flusher: flusher(2) }),
);
testWrongVariant(
  'a removal that waits for the round after the last that has completed',
  'threw',
  model({ remover: remover(2, ({ completed }) => completed + 1), flusher: flusher(2) }),
);
