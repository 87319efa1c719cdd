/** Model of the notes of unflushed data: a flush that follows a write has a barrier that covers it. */
import assert from 'node:assert/strict';
import { ControlWord, QueueWord, queueWord } from '../../src/engine/words/control-block.js';
import { releaseMutexWord, takeMutexWord } from '../../src/engine/words/mutex-word.js';
import { releaseQueueLine } from '../../src/engine/queues/queue-line.js';
import { UnflushedData, takeUnflushed } from '../../src/engine/flush/unflushed.js';
import type { Model } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

/** Writes of each of two queues: sent to the disk, known to be complete, durable. */
const Word = { written: 100_000, told: 100_002, durable: 100_004 } as const;
const { barrierOwed, flushMutex, unflushedData } = ControlWord;

const names = {
  [flushMutex]: 'mutex',
  [unflushedData]: 'note of the image',
  [barrierOwed]: 'barrier owed',
  ...Object.fromEntries(
    [0, 1].flatMap((line) => [
      [Word.written + line, `written ${line}`],
      [Word.told + line, `told ${line}`],
      [Word.durable + line, `durable ${line}`],
      [queueWord(line, QueueWord.unflushedData), `note ${line}`],
      [queueWord(line, QueueWord.inUse), `in use ${line}`],
    ]),
  ),
};

function model(threads: Model['threads']): Model {
  return {
    threads,
    names,
    initial: Object.fromEntries([0, 1].map((line) => [queueWord(line, QueueWord.inUse), 1])),
  };
}

type Note = (memory: ThreadMemory, line: number) => void;

const notes: Note = (memory, line) => {
  new UnflushedData(memory, line).note();
};

/** Writes once, or twice, and tells of each write that has completed. */
function writer(line: number, writes = 1, note: Note = notes): Program {
  return (memory) => {
    for (let write = 1; write <= writes; write++) {
      memory.call(() => {
        memory.store(Word.written + line, write);
        note(memory, line);
        memory.store(Word.told + line, write);
      });
    }
  };
}

/** Writes and leaves. */
function leaver(
  line: number,
  handOver: Note = (memory) => {
    new UnflushedData(memory, line).handOver();
  },
): Program {
  return (memory) => {
    writer(line)(memory);
    memory.call(() => {
      handOver(memory, line);
      releaseQueueLine(memory, line);
    });
  };
}

/** A barrier makes durable what was written before it. */
function barrier(memory: ThreadMemory, lines: readonly number[]): void {
  for (const line of lines) {
    memory.call(() => {
      memory.store(Word.durable + line, memory.load(Word.written + line));
    });
  }
}

interface Flusher {
  readonly lines?: readonly number[];
  readonly rounds?: number;
  /** Whether the first barrier fails. */
  readonly fails?: boolean;
  readonly take?: (memory: ThreadMemory) => boolean;
  /** Whether it notes that the barrier is still missing. */
  readonly owes?: boolean;
}

function flusher({
  lines = [0],
  rounds = 1,
  fails = false,
  take = takeUnflushed,
  owes = true,
}: Flusher = {}): Program {
  return async (memory) => {
    for (let round = 0; round < rounds; round++) {
      await memory.call(async () => {
        const told = lines.map((line) => memory.load(Word.told + line));
        await memory.retry(() => takeMutexWord(memory, flushMutex));
        const noted = take(memory);
        const owed = memory.exchange(barrierOwed, 0) !== 0;
        if (fails && round === 0) {
          if (owes) memory.store(barrierOwed, 1);
          releaseMutexWord(memory, flushMutex);
          return;
        }
        if (noted || owed) barrier(memory, lines);
        releaseMutexWord(memory, flushMutex);
        for (const [at, line] of lines.entries()) {
          const durable = memory.load(Word.durable + line);
          assert.ok(durable >= told[at], 'a flush has left out a completed write');
        }
      });
    }
  };
}

testModel(
  'writes and two flushes',
  model({ writer: writer(0, 2), flusher: flusher({ rounds: 2 }) }),
);
testModel(
  'writes and flushes of two threads',
  model({ writer: writer(0, 2), one: flusher(), two: flusher() }),
);
testModel(
  'writes of two queues and a flush',
  model({ one: writer(0), two: writer(1), flusher: flusher({ lines: [0, 1] }) }),
);
testModel(
  'writes and flushes of two threads, of which the first fails',
  model({ writer: writer(0), one: flusher({ fails: true }), two: flusher() }),
);
testModel(
  'a queue that leaves, and two flushes',
  model({ leaver: leaver(0), flusher: flusher({ rounds: 2 }) }),
);
testModel(
  'a queue that leaves, and flushes of two threads',
  model({ leaver: leaver(0), one: flusher(), two: flusher() }),
);

testWrongVariant(
  'a note made before the write has completed',
  'threw',
  model({
    writer: (memory) => {
      notes(memory, 0);
      memory.store(Word.written, 1);
      memory.store(Word.told, 1);
    },
    flusher: flusher({ rounds: 2 }),
  }),
);
testWrongVariant(
  'a write whose caller hears of it before it is noted',
  'threw',
  model({
    writer: (memory) => {
      memory.store(Word.written, 1);
      memory.store(Word.told, 1);
      notes(memory, 0);
    },
    flusher: flusher(),
  }),
);
testWrongVariant(
  'notes that are cleared after the barrier',
  'threw',
  model({
    writer: writer(0, 2),
    flusher: async (memory) => {
      const note = queueWord(0, QueueWord.unflushedData);
      await flusher({ take: () => memory.load(note) !== 0 })(memory);
      memory.store(note, 0);
      await flusher()(memory);
    },
  }),
);
testWrongVariant(
  'a failed barrier that nobody owes afterwards',
  'threw',
  model({
    writer: writer(0),
    one: flusher({ fails: true, owes: false }),
    two: flusher(),
  }),
);
testWrongVariant(
  'a queue that clears its note before it leaves it to the image',
  'threw',
  model({
    leaver: leaver(0, (memory, line) => {
      if (memory.exchange(queueWord(line, QueueWord.unflushedData), 0) === 0) return;
      memory.store(unflushedData, 1);
    }),
    flusher: flusher(),
  }),
);
testWrongVariant(
  'a leader that looks at the note of the image before those of the queues',
  'threw',
  model({
    leaver: leaver(0),
    flusher: flusher({
      take: (memory) => {
        const noted = memory.exchange(unflushedData, 0) !== 0;
        const note = queueWord(0, QueueWord.unflushedData);
        return (memory.load(note) !== 0 && memory.exchange(note, 0) !== 0) || noted;
      },
    }),
  }),
);
