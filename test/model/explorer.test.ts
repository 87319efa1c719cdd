/** The explorer itself: counts that are known beforehand, and one failure of every kind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { releaseMutexWord, takeMutexWord } from '../../src/engine/words/mutex-word.js';
import { lockExclusive, unlockExclusive } from '../../src/engine/words/spin-word.js';
import { type Model, explore } from './explorer.js';
import { Section } from './section.js';
import { ModelPoisoned, type Program } from './thread-program.js';

const storesTo =
  (...indexes: number[]): Program =>
  (memory) => {
    for (const index of indexes) memory.store(index, 1);
  };

test('interleavings of threads that have nothing to do with each other are counted exactly', async () => {
  const two = await explore({ threads: { a: storesTo(0, 1, 2), b: storesTo(3, 4, 5) } });
  assert.equal(two.interleavings, 20n);
  assert.equal(two.states, 16);
  const three = await explore({
    threads: { a: storesTo(0, 1, 2), b: storesTo(3, 4, 5), c: storesTo(6, 7, 8) },
  });
  assert.equal(three.interleavings, 1680n);
});

test('what no thread changes costs no step', async () => {
  const { interleavings } = await explore({
    threads: {
      a: (memory) => {
        assert.equal(memory.load(7), 70);
        memory.store(0, 1);
      },
      b: (memory) => {
        memory.store(1, memory.load(7));
      },
    },
    initial: { 7: 70 },
    atEnd: (load) => {
      assert.equal(load(1), 70);
    },
  });
  assert.equal(interleavings, 2n);
});

test('equal states are explored once, interleavings counted all the same', async () => {
  const counts = (memory: Parameters<Program>[0]): void => {
    for (let round = 0; round < 2; round++) {
      memory.call(() => {
        memory.add(0, 1);
      });
    }
  };
  const { states, interleavings } = await explore({ threads: { a: counts, b: counts } });
  assert.equal(interleavings, 6n);
  assert.equal(states, 9);
});

test('what programs say they forget changes no count', async () => {
  const section = new Section(1);
  const holds =
    (rounds: number): Program =>
    async (memory) => {
      for (let round = 0; round < rounds; round++) {
        memory.spin(() => {
          lockExclusive(memory, 0);
        });
        section.write(memory);
        memory.call(() => {
          unlockExclusive(memory, 0);
        });
        await memory.retry(() => takeMutexWord(memory, 3));
        section.write(memory);
        memory.call(() => {
          releaseMutexWord(memory, 3);
        });
      }
    };
  const model: Model = { threads: { one: holds(2), two: holds(2) } };
  const forgetting = await explore(model);
  const remembering = await explore({ ...model, forgets: false });
  assert.equal(forgetting.interleavings, remembering.interleavings);
  assert.ok(forgetting.states < remembering.states);
});

const failing: readonly [name: string, kind: string, steps: number, model: Model][] = [
  [
    'a count that is loaded and stored loses one',
    'wrong-end',
    4,
    {
      threads: { a: incrementsUnsafely, b: incrementsUnsafely },
      atEnd: (load) => {
        assert.equal(load(0), 2);
      },
    },
  ],
  [
    'a wait that nobody ends',
    'stuck',
    2,
    { threads: { a: (memory) => memory.wait(0, 0), b: storesTo(0) } },
  ],
  [
    'a pause that nobody ends',
    'stuck',
    0,
    {
      threads: {
        a: (memory) => {
          memory.pause(0, 0);
        },
      },
    },
  ],
  [
    'two threads that give way to each other for ever',
    'endless',
    1,
    { threads: { a: swaps(0, 1), b: swaps(1, 0) } },
  ],
];

for (const [name, kind, steps, model] of failing) {
  test(`found: ${name}`, async () => {
    const { failure, interleavings } = await explore(model);
    assert.equal(failure?.kind, kind);
    assert.equal(failure.schedule.length, steps, failure.schedule.join('\n'));
    assert.equal(interleavings, 0n);
  });
}

function incrementsUnsafely(memory: Parameters<Program>[0]): void {
  memory.store(0, memory.load(0) + 1);
}

function swaps(from: number, to: number): Program {
  return (memory) => {
    memory.spin(() => {
      for (;;) {
        memory.compareExchange(0, from, to);
        memory.pause(0, to);
      }
    });
  };
}

test('the schedule of a failure names every step', async () => {
  const { failure } = await explore({
    threads: {
      one: (memory) => {
        memory.store(0, 3);
      },
      two: (memory) => {
        if (memory.load(0) === 3) throw new Error('three');
      },
    },
    names: { 0: 'number' },
  });
  assert.deepEqual(failure, {
    kind: 'threw',
    message: 'three',
    schedule: ['one: store number 3 -> 0', 'two: load number -> 3'],
  });
});

test('several requests of one thread wait side by side, and wake in any order', async () => {
  const ends = new Set<string>();
  const { interleavings, failure } = await explore({
    threads: {
      requests: async (memory) => {
        const order: string[] = [];
        const request = async (index: number, name: string): Promise<void> => {
          await memory.wait(index, 0);
          order.push(name);
        };
        await Promise.all([request(0, 'a'), request(1, 'b')]);
        return order.join('');
      },
      waker: (memory) => {
        for (const index of [0, 1]) {
          memory.store(index, 1);
          memory.notify(index);
        }
      },
    },
    atEnd: (_load, [order]) => {
      ends.add(String(order));
    },
  });
  assert.equal(failure, undefined);
  assert.ok(interleavings > 10n);
  assert.deepEqual([...ends].sort(), ['ab', 'ba']);
});

test('waits end for no reason as often as a model allows', async () => {
  const model: Model = {
    threads: {
      a: async (memory) => {
        await memory.wait(0, 0);
        return memory.load(0);
      },
      b: (memory) => {
        memory.store(0, 1);
        memory.notify(0);
      },
    },
    atEnd: (_load, [seen]) => {
      assert.equal(seen, 1);
    },
  };
  assert.equal((await explore(model)).failure, undefined);
  assert.equal((await explore({ ...model, spuriousWakes: 1 })).failure?.kind, 'wrong-end');
});

test('who waits in poisoned memory is told so', async () => {
  const waits: Program = async (memory) => {
    try {
      await memory.wait(0, 0);
      return 'woken';
    } catch (error) {
      assert.ok(error instanceof ModelPoisoned);
      return 'poisoned';
    }
  };
  const { failure } = await explore({
    threads: { a: waits, b: storesTo(1) },
    poison: { index: 1, value: 1 },
    atEnd: (_load, [outcome]) => {
      assert.equal(outcome, 'poisoned');
    },
  });
  assert.equal(failure, undefined);
});
