/** Model of the spinning reader-writer word: who holds it for writing is alone. */
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';
import {
  lockExclusive,
  lockShared,
  unlockExclusive,
  unlockShared,
} from '../../src/engine/words/spin-word.js';
import type { Model } from './explorer.js';
import { extraRounds, testModel, testWrongVariant } from './report.js';
import { Section } from './section.js';
import { type Program, orPoisoned } from './thread-program.js';

const word = 0;
const section = new Section(1);

type Lock = (memory: AtomicMemory, index: number) => void;

function writer(
  rounds: number,
  lock: Lock = lockExclusive,
  unlock: Lock = unlockExclusive,
): Program {
  return (memory) => {
    for (let round = 0; round < rounds; round++) {
      memory.spin(() => {
        lock(memory, word);
      });
      section.write(memory);
      memory.call(() => {
        unlock(memory, word);
      });
    }
  };
}

function reader(rounds: number, lock: Lock = lockShared, unlock: Lock = unlockShared): Program {
  return (memory) => {
    for (let round = 0; round < rounds; round++) {
      memory.spin(() => {
        lock(memory, word);
      });
      section.read(memory);
      memory.call(() => {
        unlock(memory, word);
      });
    }
  };
}

function model(threads: Model['threads'], writes: number): Model {
  return {
    threads,
    names: { [word]: 'word', ...section.names },
    atEnd: (load) => {
      section.checkEnd(load, writes);
      if (load(word) !== 0) throw new Error('the word is still held');
    },
  };
}

const rounds = 3 + extraRounds;

testModel('two writers', model({ one: writer(rounds), two: writer(rounds) }, 2 * rounds));
testModel(
  'a reader and a writer',
  model({ reader: reader(rounds), writer: writer(rounds) }, rounds),
);
testModel('two readers', model({ one: reader(rounds), two: reader(rounds) }, 0));
testModel('three writers', model({ one: writer(2), two: writer(2), three: writer(2) }, 6));
testModel(
  'two readers and a writer',
  model({ one: reader(2), two: reader(2), writer: writer(2) }, 2),
);
testModel(
  'a reader and two writers',
  model({ reader: reader(2), one: writer(2), two: writer(2) }, 4),
);

const poison = { index: 10, value: 1 };

testModel('a writer that dies holding the word, and others, of which each is told', {
  threads: {
    dying: orPoisoned((memory) => {
      lockExclusive(memory, word);
      memory.store(poison.index, poison.value);
    }),
    reader: orPoisoned(reader(1)),
    writer: orPoisoned(writer(1)),
  },
  poison,
  names: { [word]: 'word', [poison.index]: 'poison', ...section.names },
});

testWrongVariant(
  'a writer that looks and then stores',
  'threw',
  model({ one: writer(1, looksThenStores), two: writer(1, looksThenStores) }, 2),
);

function looksThenStores(memory: AtomicMemory, index: number): void {
  for (let spins = 1; ; spins++) {
    const seen = memory.load(index);
    if (seen === 0) break;
    memory.pause(index, seen, spins);
  }
  memory.store(index, 0x40000000);
}

testWrongVariant(
  'a reader that raises the count before it looks for a writer',
  'threw',
  model({ reader: reader(1, raisesFirst), writer: writer(1) }, 1),
);

/** Its count would be lost when the writer's release stores over it. */
function raisesFirst(memory: AtomicMemory, index: number): void {
  for (let spins = 1; ; spins++) {
    const seen = memory.add(index, 1) + 1;
    if ((seen & 0x40000000) === 0) return;
    const lowered = memory.add(index, -1) - 1;
    if ((lowered & 0x40000000) !== 0) memory.pause(index, lowered, spins);
  }
}

testWrongVariant(
  'a release by a writer that forgets to store',
  'stuck',
  model({ one: writer(1, lockExclusive, () => undefined), two: writer(1) }, 2),
);

testWrongVariant(
  'a writer that does not wait for readers',
  'threw',
  model({ reader: reader(1), writer: writer(1, ignoresReaders) }, 1),
);

function ignoresReaders(memory: AtomicMemory, index: number): void {
  memory.or(index, 0x40000000);
}
