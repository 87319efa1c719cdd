/**
 * Model of the gate: an exclusive operation is alone, everybody gets through in the end, and once
 * memory is poisoned everybody is told so.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';
import {
  ControlWord,
  GateState,
  QueueWord,
  queueWord,
} from '../../src/engine/words/control-block.js';
import { QueueGate, closeGate, openGate, runAlone } from '../../src/engine/queues/gate.js';
import type { Model } from './explorer.js';
import { extraRounds, testModel, testWrongVariant } from './report.js';
import { Section } from './section.js';
import { type Program, type ThreadMemory, orPoisoned } from './thread-program.js';

const section = new Section(100_000);
const gate = ControlWord.gate;
const { active, oldestEpoch } = QueueWord;

const names = {
  [gate]: 'gate',
  ...section.names,
  ...Object.fromEntries(
    [0, 1].flatMap((line) => [
      [queueWord(line, active), `active ${line}`],
      [queueWord(line, oldestEpoch), `epoch ${line}`],
    ]),
  ),
};

/** Requests of one queue, one after the other. */
function requests(line: number, rounds: number): Program {
  return async (memory) => {
    const queue = new QueueGate(memory, line);
    for (let round = 0; round < rounds; round++) {
      await memory.call(async () => {
        const epoch = await memory.retry(() => queue.enter());
        section.read(memory);
        queue.leave(epoch);
      });
    }
  };
}

/** Two requests of one queue, the second of which begins while the first is under way. */
function overlappingRequests(line: number): Program {
  return async (memory) => {
    const queue = new QueueGate(memory, line);
    const request = async (): Promise<void> => {
      const epoch = await queue.enter();
      section.read(memory);
      await Promise.resolve();
      queue.leave(epoch);
    };
    await Promise.all([request(), request()]);
  };
}

function exclusive(rounds: number, alone = runAlone): Program {
  return async (memory) => {
    for (let round = 0; round < rounds; round++) {
      await memory.retry(() =>
        alone(memory, () => {
          section.write(memory);
          return Promise.resolve();
        }),
      );
    }
  };
}

function model(threads: Model['threads'], writes: number, spuriousWakes = 0): Model {
  return {
    threads,
    spuriousWakes,
    names,
    atEnd: (load) => {
      section.checkEnd(load, writes);
      assert.equal(load(gate), GateState.open);
      for (const line of [0, 1]) assert.equal(load(queueWord(line, active)), 0);
    },
  };
}

const rounds = 2 + extraRounds;

testModel(
  'requests of a queue and exclusive operations',
  model({ queue: requests(0, rounds), exclusive: exclusive(rounds) }, rounds),
);
testModel(
  'two exclusive operations',
  model({ one: exclusive(rounds), two: exclusive(rounds) }, 2 * rounds),
);
testModel(
  'three exclusive operations',
  model({ one: exclusive(1), two: exclusive(1), three: exclusive(1) }, 3),
);
testModel(
  'requests of two queues and an exclusive operation',
  model({ one: requests(0, 1), two: requests(1, 1), exclusive: exclusive(1) }, 1),
);
testModel(
  'a request and two exclusive operations',
  model({ queue: requests(0, 1), one: exclusive(1), two: exclusive(1) }, 2),
);
testModel(
  'two requests of a queue at the same time and an exclusive operation',
  model({ queue: overlappingRequests(0), exclusive: exclusive(1) }, 1),
);

/** The line of a closed queue belongs to another. */
const released = 100_100;

/** A request of a queue that is closed at the same time, and then gives its line up. */
const closes: Program = async (memory) => {
  const queue = new QueueGate(memory, 0);
  const request = async (): Promise<void> => {
    const epoch = await queue.enter();
    assert.equal(memory.load(released), 0, 'a request of a queue that has given its line up');
    queue.leave(epoch);
  };
  const close = async (): Promise<void> => {
    await queue.idle();
    memory.store(released, 1);
  };
  await Promise.all([request(), close()]);
};

testModel(
  'a request of a queue that closes, and an exclusive operation',
  model({ queue: closes, exclusive: exclusive(1) }, 1),
);

testWrongVariant(
  'a queue that closes while its request waits at the gate',
  'threw',
  model(
    {
      queue: async (memory) => {
        let inside = 0;
        const request = async (): Promise<void> => {
          await enter(memory, 0);
          inside++;
          assert.equal(memory.load(released), 0, 'the line has been given up');
          inside--;
          leave(memory, 0);
        };
        const close = async (): Promise<void> => {
          while (inside > 0) await Promise.resolve();
          memory.store(released, 1);
        };
        await Promise.all([request(), close()]);
      },
      exclusive: exclusive(1),
    },
    1,
  ),
);

/** What the end of a thread that dies does: at any step of the others. */
const poisons: Program = (memory) => {
  memory.store(gate, GateState.poisoned);
};

function poisonedModel(threads: Model['threads']): Model {
  return {
    threads,
    names,
    poison: { index: gate, value: GateState.poisoned },
    atEnd: (load) => {
      assert.equal(load(gate), GateState.poisoned, 'the poison is hidden');
    },
  };
}

testModel(
  'requests of two queues and an exclusive operation, of which some wake for no reason',
  model({ one: requests(0, 1), two: requests(1, 1), exclusive: exclusive(1) }, 1, 2),
);

const dying = { dying: poisons };

testModel(
  'a thread dies beside a request and an exclusive operation',
  poisonedModel({
    queue: orPoisoned(requests(0, 1)),
    exclusive: orPoisoned(exclusive(1)),
    ...dying,
  }),
);
testModel(
  'a thread dies beside two exclusive operations',
  poisonedModel({ one: orPoisoned(exclusive(1)), two: orPoisoned(exclusive(1)), ...dying }),
);
testModel(
  'a thread dies that holds the gate',
  poisonedModel({
    holder: async (memory) => {
      await memory.retry(() => closeGate(memory));
      poisons(memory);
    },
    queue: orPoisoned(requests(0, 2)),
    other: orPoisoned(exclusive(1)),
  }),
);
testModel(
  'a thread dies in the middle of a request',
  poisonedModel({
    dying: orPoisoned(async (memory) => {
      await new QueueGate(memory, 0).enter();
      poisons(memory);
    }),
    queue: orPoisoned(requests(1, 1)),
    exclusive: orPoisoned(exclusive(1)),
  }),
);

testWrongVariant(
  'a request that looks at the gate before it counts itself',
  'threw',
  model(
    {
      queue: async (memory) => {
        while (memory.load(gate) !== GateState.open) await memory.wait(gate, GateState.closed);
        memory.store(queueWord(0, active), 1);
        section.read(memory);
        leave(memory, 0);
      },
      exclusive: exclusive(1),
    },
    1,
  ),
);

function leave(memory: AtomicMemory, line: number): void {
  memory.store(queueWord(line, active), 0);
  if (memory.load(gate) === GateState.closed) memory.notify(queueWord(line, active));
}

testWrongVariant(
  'a last request that wakes before it lowers the count',
  'stuck',
  model(
    {
      queue: async (memory) => {
        await enter(memory, 0);
        memory.notify(queueWord(0, active));
        memory.store(queueWord(0, active), 0);
      },
      exclusive: exclusive(1),
    },
    1,
  ),
);

async function enter(memory: ThreadMemory, line: number): Promise<void> {
  for (;;) {
    memory.store(queueWord(line, active), 1);
    if (memory.load(gate) === GateState.open) return;
    leave(memory, line);
    await memory.wait(gate, GateState.closed);
  }
}

testWrongVariant(
  'a last request that looks at the gate before it lowers the count',
  'stuck',
  model(
    {
      queue: async (memory) => {
        await enter(memory, 0);
        const isAwaited = memory.load(gate) === GateState.closed;
        memory.store(queueWord(0, active), 0);
        if (isAwaited) memory.notify(queueWord(0, active));
      },
      exclusive: exclusive(1),
    },
    1,
  ),
);

testWrongVariant(
  'a request that found the gate closed and lowers its count without waking',
  'stuck',
  model(
    {
      queue: async (memory) => {
        for (;;) {
          memory.store(queueWord(0, active), 1);
          if (memory.load(gate) === GateState.open) break;
          memory.store(queueWord(0, active), 0);
          await memory.wait(gate, GateState.closed);
        }
        leave(memory, 0);
      },
      exclusive: exclusive(1),
    },
    1,
  ),
);

/** An exclusive operation that opens the gate in another way. */
function opensBy(open: (memory: AtomicMemory) => void): Program {
  return exclusive(1, async (memory, alone) => {
    await closeGate(memory);
    const result = await alone();
    open(memory);
    return result;
  });
}

testWrongVariant(
  'an exclusive operation that wakes nobody',
  'stuck',
  model(
    {
      queue: requests(0, 1),
      exclusive: opensBy((memory) => {
        memory.store(gate, GateState.open);
      }),
    },
    1,
  ),
);

testWrongVariant(
  'an exclusive operation that opens the gate with a store, which hides poison',
  'wrong-end',
  poisonedModel({
    exclusive: orPoisoned(
      opensBy((memory) => {
        memory.store(gate, GateState.open);
        memory.notify(gate);
      }),
    ),
    ...dying,
  }),
);

testWrongVariant(
  'exclusive operations that look at the gate and then close it',
  'threw',
  model({ one: looksThenCloses, two: looksThenCloses }, 2),
);

async function looksThenCloses(memory: ThreadMemory): Promise<void> {
  while (memory.load(gate) !== GateState.open) await memory.wait(gate, GateState.closed);
  memory.store(gate, GateState.closed);
  section.write(memory);
  openGate(memory);
}
