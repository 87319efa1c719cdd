/**
 * Model of shared flush rounds: nobody is told that something is durable unless a round that began
 * after it had completed says so.
 */
import assert from 'node:assert/strict';
import { ControlWord } from '../../src/engine/words/control-block.js';
import { FlushRounds } from '../../src/engine/flush/flush-rounds.js';
import { LongMutex } from '../../src/engine/words/long-mutex.js';
import type { Model } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

/** What each of three callers has completed, and what of that is durable. */
const Word = { completed: 100_000, durable: 100_003 } as const;
const callers = [0, 1, 2];
const { flushMutex, roundsBegun, roundsCompleted } = ControlWord;

const names = {
  [flushMutex]: 'mutex',
  [roundsBegun]: 'begun',
  [roundsCompleted]: 'completed',
  ...Object.fromEntries(
    callers.flatMap((caller) => [
      [Word.completed + caller, `work ${caller}`],
      [Word.durable + caller, `durable ${caller}`],
    ]),
  ),
};

/** Copies what the callers have completed, then makes it durable. */
function round(memory: ThreadMemory, fails: boolean): Promise<void> {
  memory.call(() => {
    const copies = callers.map((caller) => memory.load(Word.completed + caller));
    for (const [caller, copy] of copies.entries()) {
      if (!fails && copy !== 0) memory.store(Word.durable + caller, copy);
    }
  });
  return fails ? Promise.reject(new Error('the disk fails')) : Promise.resolve();
}

type Share = (memory: ThreadMemory, run: () => Promise<void>) => () => Promise<void>;

const shares: Share = (memory, run) => {
  const mutex = new LongMutex(memory, flushMutex);
  const rounds = new FlushRounds(memory, mutex, run, () => undefined);
  return () => rounds.share();
};

/** Callers of one thread, each of which completes something and flushes. */
function thread(
  ofThread: readonly number[],
  { fails = false, share = shares }: { readonly fails?: boolean; readonly share?: Share } = {},
): Program {
  return async (memory) => {
    let failing = fails;
    const flush = share(memory, () => {
      const fail = failing;
      failing = false;
      return round(memory, fail);
    });
    const call = async (caller: number): Promise<void> => {
      memory.store(Word.completed + caller, 1);
      try {
        await flush();
      } catch {
        return;
      }
      assert.equal(memory.load(Word.durable + caller), 1, 'not durable, but said to be');
    };
    await Promise.all(ofThread.map(call));
  };
}

/** One caller that flushes twice. */
const twice: Program = async (memory) => {
  const flush = shares(memory, () => round(memory, false));
  for (let work = 1; work <= 2; work++) {
    memory.store(Word.completed, work);
    await flush();
    assert.equal(memory.load(Word.durable), work, 'not durable, but said to be');
  }
};

const model = (threads: Model['threads']): Model => ({ threads, names });

testModel('two threads', model({ one: thread([0]), two: thread([1]) }));
testModel('two threads, one flushes twice', model({ one: twice, two: thread([1]) }));
testModel(
  'a thread with two callers, and another',
  model({ one: thread([0, 1]), two: thread([2]) }),
);
testModel(
  'two threads, the first round of one fails',
  model({ one: thread([0], { fails: true }), two: thread([1]) }),
);
testModel('three threads', model({ one: thread([0]), two: thread([1]), three: thread([2]) }));

/** Shares by a rule of its own which rounds do. */
function sharesWhere(isEnough: (memory: ThreadMemory, begunAtCall: number) => boolean): Share {
  return (memory, run) => {
    const mutex = new LongMutex(memory, flushMutex);
    return async () => {
      const begun = memory.load(roundsBegun);
      if (isEnough(memory, begun)) return;
      await mutex.runExclusive(async () => {
        if (isEnough(memory, begun)) return;
        const number = memory.add(roundsBegun, 1) + 1;
        await run();
        memory.store(roundsCompleted, number);
      });
    };
  };
}

const wrong = (share: Share): Model =>
  model({ one: thread([0], { share }), two: thread([1], { share }) });

testWrongVariant(
  'callers that share the round that is under way',
  'threw',
  wrong(sharesWhere((memory, begun) => begun > 0 && memory.load(roundsCompleted) >= begun)),
);

testWrongVariant(
  'a round that counts as begun only once it has copied',
  'threw',
  wrong((memory, run) => {
    const mutex = new LongMutex(memory, flushMutex);
    return async () => {
      const wanted = memory.load(roundsBegun) + 1;
      await mutex.runExclusive(async () => {
        if (memory.load(roundsCompleted) >= wanted) return;
        await run();
        const number = memory.add(roundsBegun, 1) + 1;
        memory.store(roundsCompleted, number);
      });
    };
  }),
);

testWrongVariant(
  'callers of one thread that share a flush which has begun',
  'threw',
  model({
    one: thread([0, 1], {
      share: (memory, run) => {
        const flush = shares(memory, run);
        let running: Promise<void> | undefined;
        return () => {
          running ??= flush().finally(() => {
            running = undefined;
          });
          return running;
        };
      },
    }),
    two: thread([2]),
  }),
);
