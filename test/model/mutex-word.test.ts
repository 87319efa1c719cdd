/** Model of the long mutex and its word: one holder at a time, and no wake-up is lost. */
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';
import { LongMutex } from '../../src/engine/words/long-mutex.js';
import { releaseMutexWord, takeMutexWord } from '../../src/engine/words/mutex-word.js';
import type { Model } from './explorer.js';
import { extraRounds, testModel, testWrongVariant } from './report.js';
import { Section } from './section.js';
import { type Program, orPoisoned } from './thread-program.js';

const word = 0;
const section = new Section(1);
const State = { free: 0, held: 1, awaited: 2 } as const;

type Take = (memory: AtomicMemory, index: number) => Promise<void>;
type Release = (memory: AtomicMemory, index: number) => void;

function holder(
  rounds: number,
  take: Take = takeMutexWord,
  release: Release = releaseMutexWord,
): Program {
  return async (memory) => {
    for (let round = 0; round < rounds; round++) {
      await memory.retry(() => take(memory, word));
      section.write(memory);
      memory.call(() => {
        release(memory, word);
      });
    }
  };
}

function model(threads: Model['threads'], writes: number, spuriousWakes = 0): Model {
  return {
    threads,
    spuriousWakes,
    names: { [word]: 'mutex', ...section.names },
    atEnd: (load) => {
      section.checkEnd(load, writes);
      if (load(word) !== State.free) throw new Error('the mutex is still held');
    },
  };
}

const rounds = 2 + extraRounds;

testModel('two threads', model({ one: holder(rounds), two: holder(rounds) }, 2 * rounds));
testModel(
  'three threads',
  model({ one: holder(rounds), two: holder(rounds), three: holder(rounds) }, 3 * rounds),
);
testModel(
  'three threads, of which some wake for no reason',
  model({ one: holder(1), two: holder(1), three: holder(1) }, 3, 2),
);
testModel(
  'a thread with two requests at the same time, and another thread',
  model({ both: twoRequests, other: holder(2) }, 4),
);

async function twoRequests(memory: Parameters<Program>[0]): Promise<void> {
  const mutex = new LongMutex(memory, word);
  const request = (): Promise<void> =>
    mutex.runExclusive(() => {
      section.write(memory);
      return Promise.resolve();
    });
  await Promise.all([request(), request()]);
}

const poison = { index: 10, value: 1 };

testModel('a thread that dies holding the mutex, and two others, of which each is told', {
  threads: {
    dying: async (memory) => {
      await takeMutexWord(memory, word);
      memory.store(poison.index, poison.value);
    },
    one: orPoisoned(holder(1)),
    two: orPoisoned(holder(1)),
  },
  poison,
  names: { [word]: 'mutex', [poison.index]: 'poison', ...section.names },
});

testWrongVariant(
  'a release that wakes before it stores',
  'stuck',
  model({ one: holder(1, undefined, wakesFirst), two: holder(1, undefined, wakesFirst) }, 2),
);

function wakesFirst(memory: AtomicMemory, index: number): void {
  if (memory.load(index) === State.awaited) memory.notify(index);
  memory.store(index, State.free);
}

testWrongVariant(
  'a release that looks for waiters before it stores',
  'stuck',
  model({ one: holder(1, undefined, looksFirst), two: holder(1, undefined, looksFirst) }, 2),
);

function looksFirst(memory: AtomicMemory, index: number): void {
  const seen = memory.load(index);
  memory.store(index, State.free);
  if (seen === State.awaited) memory.notify(index);
}

testWrongVariant(
  'a release that wakes nobody',
  'stuck',
  model({ one: holder(1, undefined, wakesNobody), two: holder(1, undefined, wakesNobody) }, 2),
);

function wakesNobody(memory: AtomicMemory, index: number): void {
  memory.store(index, State.free);
}

testWrongVariant(
  'a waiter that takes the mutex as if nobody else waited, where a release wakes one',
  'stuck',
  model(
    {
      one: holder(1, forgetsOthers),
      two: holder(1, forgetsOthers),
      three: holder(1, forgetsOthers),
    },
    3,
  ),
);

/** Waits with the word as awaited, but has it as merely held afterwards. */
async function forgetsOthers(memory: AtomicMemory, index: number): Promise<void> {
  for (;;) {
    const seen = memory.compareExchange(index, State.free, State.held);
    if (seen === State.free) return;
    if (seen === State.held) memory.store(index, State.awaited);
    await memory.wait(index, State.awaited);
  }
}

testWrongVariant(
  'a taker that looks and then stores',
  'threw',
  model({ one: holder(1, looksThenStores), two: holder(1, looksThenStores) }, 2),
);

async function looksThenStores(memory: AtomicMemory, index: number): Promise<void> {
  for (;;) {
    if (memory.load(index) === State.free) break;
    memory.store(index, State.awaited);
    await memory.wait(index, State.awaited);
  }
  memory.store(index, State.held);
}
