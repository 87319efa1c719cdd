/**
 * Model of the notes that a flush round takes beside its copies: of L2 tables written around the
 * cache, and of clusters filled with what another place had kept. What points at either reaches the
 * disk only after a barrier that covers it.
 */
import assert from 'node:assert/strict';
import { ControlWord } from '../../src/engine/words/control-block.js';
import { releaseMutexWord, takeMutexWord } from '../../src/engine/words/mutex-word.js';
import type { Model } from './explorer.js';
import { extraRounds, testModel, testWrongVariant } from './report.js';
import type { Program } from './thread-program.js';

/** How often it was filled, how much of that is durable, and what points at it: memory and disk. */
const Word = { filled: 100_000, durable: 100_001, entry: 100_002, disk: 100_003 } as const;
const { flushMutex, unflushedCopy: note } = ControlWord;

type Step = 'fill' | 'note' | 'link';

/** Fills and links some times, each time noting the fill before the link. */
function linker(times: number, steps: readonly Step[] = ['fill', 'note', 'link']): Program {
  return (memory) => {
    const take: Record<Step, (time: number) => void> = {
      fill: (time) => {
        memory.store(Word.filled, time);
      },
      note: () => {
        memory.store(note, 1);
      },
      link: (time) => {
        memory.store(Word.entry, time);
      },
    };
    for (let time = 1; time <= times; time++) {
      memory.call(() => {
        for (const step of steps) take[step](time);
      });
    }
  };
}

/** Flush rounds, by whatever leaders there are. */
function leader(rounds: number, takesFirst = false): Program {
  return async (memory) => {
    for (let round = 0; round < rounds; round++) {
      await memory.call(async () => {
        await memory.retry(() => takeMutexWord(memory, flushMutex));
        let noted = takesFirst && memory.exchange(note, 0) !== 0;
        const copy = memory.load(Word.entry);
        if (!takesFirst) noted = memory.exchange(note, 0) !== 0;
        if (noted) memory.store(Word.durable, memory.load(Word.filled));
        assert.ok(memory.load(Word.durable) >= copy, 'it is pointed at before it is durable');
        memory.store(Word.disk, copy);
        releaseMutexWord(memory, flushMutex);
      });
    }
  };
}

const model = (threads: Model['threads']): Model => ({
  threads,
  names: {
    [Word.filled]: 'filled',
    [Word.durable]: 'durable',
    [Word.entry]: 'entry',
    [Word.disk]: 'disk',
    [flushMutex]: 'mutex',
    [note]: 'note',
  },
});

const times = 3 + extraRounds;

testModel('links and rounds', model({ linker: linker(times), leader: leader(times) }));
testModel(
  'links, and rounds of two threads',
  model({ linker: linker(2), one: leader(2), two: leader(2) }),
);

testWrongVariant(
  'a note made after the link',
  'threw',
  model({ linker: linker(1, ['fill', 'link', 'note']), leader: leader(1) }),
);
testWrongVariant(
  'a note made before what it tells of is there',
  'threw',
  model({ linker: linker(1, ['note', 'fill', 'link']), leader: leader(2) }),
);
testWrongVariant(
  'a round that takes the notes before it copies',
  'threw',
  model({ linker: linker(1), leader: leader(1, true) }),
);
