/**
 * Model of epochs and limbo: a cluster is used again only when no request can still reach it by what
 * it has looked up.
 */
import {
  ControlWord,
  QueueWord,
  idleEpoch,
  queueWord,
} from '../../src/engine/words/control-block.js';
import { QueueEpochs, closeEpoch, isBefore, oldestEpoch } from '../../src/engine/queues/epochs.js';
import { Limbo, allocateLimbo } from '../../src/engine/space/limbo.js';
import { releaseQueueLine, takeQueueLine } from '../../src/engine/queues/queue-line.js';
import type { Model } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

/** A table of one entry, which points at the cluster or not, and who the cluster belongs to. */
const Word = { entry: 100_000, owner: 100_001 } as const;
const epoch = ControlWord.epoch;
const { inUse, oldestEpoch: published } = QueueWord;

function model(threads: Model['threads'], isTaken = true): Model {
  const lines = [0, 1];
  return {
    threads,
    initial: {
      [Word.entry]: 1,
      ...Object.fromEntries(
        lines.flatMap((line) => [
          [queueWord(line, inUse), isTaken ? 1 : 0],
          [queueWord(line, published), idleEpoch],
        ]),
      ),
    },
    names: {
      [Word.entry]: 'entry',
      [Word.owner]: 'owner',
      [epoch]: 'epoch',
      ...Object.fromEntries(lines.map((line) => [queueWord(line, published), `published ${line}`])),
    },
  };
}

/** Looks the cluster up; whoever has found it uses it, by what this returns, for as long as it likes. */
function lookUp(memory: ThreadMemory): () => void {
  const found = memory.load(Word.entry) !== 0;
  return () => {
    if (found && memory.load(Word.owner) !== 0) throw new Error('a cluster in use was used again');
  };
}

/** Requests of one queue, one after the other. */
function requests(line: number, rounds = 1): Program {
  return (memory) => {
    const epochs = new QueueEpochs(memory, line);
    for (let round = 0; round < rounds; round++) {
      memory.call(() => {
        const began = epochs.begin();
        lookUp(memory)();
        epochs.end(began);
      });
    }
  };
}

/** Requests of one queue of which the second begins while the first runs, and ends after it. */
function overlapping(line: number): Program {
  return (memory) => {
    const epochs = new QueueEpochs(memory, line);
    const first = epochs.begin();
    const useFirst = lookUp(memory);
    const second = epochs.begin();
    const useSecond = lookUp(memory);
    useFirst();
    epochs.end(first);
    useSecond();
    epochs.end(second);
  };
}

/** Removes the entry and puts the cluster into limbo. */
function removes(memory: ThreadMemory, limbo: Limbo): void {
  memory.store(Word.entry, 0);
  limbo.add({ cluster: 1, count: 1, epoch: closeEpoch(memory), round: 0, punch: false });
}

/** Hands the cluster out again if limbo lets it go. */
function reuses(memory: ThreadMemory, limbo: Limbo): void {
  if (limbo.takeReleasable(oldestEpoch(memory), 0).length > 0) memory.store(Word.owner, 1);
}

function remover(attempts = 2): Program {
  return (memory) => {
    const limbo = new Limbo(allocateLimbo());
    removes(memory, limbo);
    for (let attempt = 0; attempt < attempts; attempt++) reuses(memory, limbo);
  };
}

testModel('a request and a removal', model({ queue: requests(0, 2), remover: remover() }));
testModel(
  'overlapping requests and a removal',
  model({ queue: overlapping(0), remover: remover() }),
);
testModel(
  'requests of two queues and a removal',
  model({ one: requests(0), two: requests(1), remover: remover(1) }),
);
testModel(
  'a request, a removal, and another queue that ends epochs of its own',
  model({
    queue: requests(0, 2),
    remover: remover(1),
    other: (memory) => {
      closeEpoch(memory);
    },
  }),
);
testModel(
  'a queue that removes what its own earlier request still uses',
  model({
    queue: (memory) => {
      const epochs = new QueueEpochs(memory, 0);
      const limbo = new Limbo(allocateLimbo());
      const older = epochs.begin();
      const use = lookUp(memory);
      const remover = epochs.begin();
      removes(memory, limbo);
      epochs.end(remover);
      reuses(memory, limbo);
      use();
      epochs.end(older);
      reuses(memory, limbo);
    },
    other: requests(1),
  }),
);

/** A queue that takes a line, runs a request and gives the line back. */
const passing: Program = (memory) => {
  const line = memory.call(() => takeQueueLine(memory));
  requests(line)(memory);
  releaseQueueLine(memory, line);
};

testModel(
  'a queue that comes and goes, and a removal',
  model({ queue: passing, remover: remover() }, false),
);
testModel(
  'two queues that come and go, and a removal',
  model({ one: passing, two: passing, remover: remover(1) }, false),
);

testWrongVariant(
  'a queue that gives its line back before its request ends',
  'threw',
  model({
    queue: (memory) => {
      const epochs = new QueueEpochs(memory, 0);
      epochs.begin();
      const use = lookUp(memory);
      releaseQueueLine(memory, 0);
      use();
    },
    remover: remover(),
  }),
);
testWrongVariant(
  'a request that looks at the table before it publishes its epoch',
  'threw',
  model({
    queue: (memory) => {
      const epochs = new QueueEpochs(memory, 0);
      const use = lookUp(memory);
      const began = epochs.begin();
      use();
      epochs.end(began);
    },
    remover: remover(),
  }),
);
testWrongVariant(
  'a request that ends before it is done with the cluster',
  'threw',
  model({
    queue: (memory) => {
      const epochs = new QueueEpochs(memory, 0);
      const began = epochs.begin();
      const use = lookUp(memory);
      epochs.end(began);
      use();
    },
    remover: remover(),
  }),
);
testWrongVariant(
  'a removal whose epoch is closed before it',
  'threw',
  model({
    queue: requests(0),
    remover: (memory) => {
      const limbo = new Limbo(allocateLimbo());
      const closed = closeEpoch(memory);
      memory.store(Word.entry, 0);
      limbo.add({ cluster: 1, count: 1, epoch: closed, round: 0, punch: false });
      reuses(memory, limbo);
    },
  }),
);
testWrongVariant(
  'a removal that closes no epoch',
  'threw',
  model({
    queue: requests(0),
    remover: (memory) => {
      memory.store(Word.entry, 0);
      const removed = (memory.load(epoch) - 2) | 0;
      if (isBefore(removed, oldestEpoch(memory))) memory.store(Word.owner, 1);
    },
  }),
);
testWrongVariant(
  'a queue that publishes the epoch of its newest request',
  'threw',
  model({
    queue: (memory) => {
      const publish = (): void => {
        memory.store(queueWord(0, published), memory.load(epoch));
      };
      publish();
      const use = lookUp(memory);
      publish();
      use();
    },
    remover: remover(),
  }),
);
