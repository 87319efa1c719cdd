/** Model of work queues: whoever waits for an event that has happened, or will, is woken. */
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';
import { announceWait, raiseEvent } from '../../src/engine/words/event-word.js';
import { SliceWorkQueues } from '../../src/engine/cache/slice-work-queues.js';
import { lockExclusive, unlockExclusive } from '../../src/engine/words/spin-word.js';
import type { Model } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

/** The event, what it tells of (1 while outstanding), and the lock that guards that. */
const Word = { event: 0, outstanding: 1, lock: 2, secondOutstanding: 3 } as const;

function locked<Value>(memory: ThreadMemory, section: () => Value): Value {
  memory.spin(() => {
    lockExclusive(memory, Word.lock);
  });
  const value = section();
  unlockExclusive(memory, Word.lock);
  return value;
}

/** Waits as whoever needs a slice that is being loaded: announces, then looks again. */
function looksAgain(outstanding: number = Word.outstanding): Program {
  return async (memory) => {
    const queues = new SliceWorkQueues(memory, Word.event, 1);
    while (memory.load(outstanding) !== 0) {
      const announced = queues.announce(0);
      if (memory.load(outstanding) !== 0) await queues.wait(0, announced);
    }
  };
}

/** Waits as whoever meets a claim: announces under the lock that claims are made and ended under. */
const announcesUnderLock: Program = async (memory) => {
  const queues = new SliceWorkQueues(memory, Word.event, 1);
  for (;;) {
    const announced = locked(memory, () =>
      memory.load(Word.outstanding) === 0 ? undefined : queues.announce(0),
    );
    if (announced === undefined) return;
    await queues.wait(0, announced);
  }
};

/** Ends what is outstanding, then raises the event. */
function raises(
  outstanding: number = Word.outstanding,
  raise: (memory: AtomicMemory, index: number) => void = raiseEvent,
): Program {
  return (memory) => {
    locked(memory, () => {
      memory.store(outstanding, 0);
    });
    raise(memory, Word.event);
  };
}

function model(threads: Model['threads'], spuriousWakes = 0): Model {
  return {
    threads,
    spuriousWakes,
    initial: { [Word.outstanding]: 1, [Word.secondOutstanding]: 1 },
    names: {
      [Word.event]: 'event',
      [Word.outstanding]: 'outstanding',
      [Word.lock]: 'lock',
      [Word.secondOutstanding]: 'second outstanding',
    },
  };
}

testModel('one waits, looking again', model({ waiter: looksAgain(), raiser: raises() }));
testModel(
  'one waits, announced under the lock',
  model({ waiter: announcesUnderLock, raiser: raises() }),
);
testModel(
  'two wait, looking again',
  model({ one: looksAgain(), two: looksAgain(), raiser: raises() }),
);
testModel(
  'two wait, announced under the lock',
  model({ one: announcesUnderLock, two: announcesUnderLock, raiser: raises() }),
);
testModel(
  'one waits of each kind, and wakes for no reason too',
  model({ one: looksAgain(), two: announcesUnderLock, raiser: raises() }, 2),
);
testModel(
  'two events at the same time, one waits for the first',
  model({ waiter: looksAgain(), first: raises(), second: raises(Word.secondOutstanding) }),
);
testModel(
  'two events at the same time, one waits for both',
  model({
    waiter: async (memory) => {
      await looksAgain()(memory);
      await looksAgain(Word.secondOutstanding)(memory);
    },
    first: raises(),
    second: raises(Word.secondOutstanding),
  }),
);
testModel(
  'the thread that raises the event has a request that waits for it',
  model({
    both: async (memory) => {
      const queues = new SliceWorkQueues(memory, Word.event, 1);
      const wait = async (): Promise<void> => {
        while (memory.load(Word.outstanding) !== 0) {
          const announced = queues.announce(0);
          if (memory.load(Word.outstanding) !== 0) await queues.wait(0, announced);
        }
      };
      const raise = async (): Promise<void> => {
        await Promise.resolve();
        memory.store(Word.outstanding, 0);
        queues.wake(0);
      };
      await Promise.all([wait(), wait(), raise()]);
    },
    other: looksAgain(),
  }),
);

testWrongVariant(
  'a waiter that does not look again once it has announced itself',
  'stuck',
  model({
    waiter: async (memory) => {
      while (memory.load(Word.outstanding) !== 0) {
        await memory.wait(Word.event, announceWait(memory, Word.event));
      }
    },
    raiser: raises(),
  }),
);

testWrongVariant(
  'a waiter that announces itself after it has let go of the lock',
  'stuck',
  model({
    waiter: async (memory) => {
      while (locked(memory, () => memory.load(Word.outstanding) !== 0)) {
        await memory.wait(Word.event, announceWait(memory, Word.event));
      }
    },
    raiser: raises(),
  }),
);

testWrongVariant(
  'a waiter that looks again, but takes as seen what the word is by then',
  'stuck',
  model({
    waiter: async (memory) => {
      while (memory.load(Word.outstanding) !== 0) {
        announceWait(memory, Word.event);
        if (memory.load(Word.outstanding) === 0) return;
        await memory.wait(Word.event, memory.load(Word.event));
      }
    },
    raiser: raises(),
  }),
);

testWrongVariant(
  'an event that is raised before its cause is stored',
  'stuck',
  model({
    waiter: looksAgain(),
    raiser: (memory) => {
      raiseEvent(memory, Word.event);
      memory.store(Word.outstanding, 0);
    },
  }),
);

testWrongVariant(
  'an event that wakes before it counts',
  'stuck',
  model({
    waiter: looksAgain(),
    raiser: raises(Word.outstanding, (memory, index) => {
      const seen = memory.load(index);
      if ((seen & 1) === 0) return;
      memory.notify(index);
      memory.compareExchange(index, seen, seen + 1);
    }),
  }),
);

testWrongVariant(
  'an event that does not count, so that who is about to wait misses it',
  'stuck',
  model({
    waiter: looksAgain(),
    raiser: raises(Word.outstanding, (memory, index) => {
      if ((memory.load(index) & 1) !== 0) memory.notify(index);
    }),
  }),
);
