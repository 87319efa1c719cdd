/**
 * Model of the slice cache: a set of eight slots of which others keep all but one pinned. Whoever
 * has found or acquired a slice sees that slice; nothing changed is lost by eviction; who waits for
 * a load or for room is woken.
 */
import assert from 'node:assert/strict';
import { SliceCache, allocateSliceCache } from '../../src/engine/cache/slice-cache.js';
import type { Model, Words } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

const sliceSize = 512;
const cacheMemory = allocateSliceCache(8 * sliceSize, sliceSize);
const wordCount = cacheMemory.words.byteLength / 4;

/** Words of the one slot that matters, in the order in which they lie, and of its set. */
const Slot = { lock: 0, key: 1, state: 2, pins: 3, used: 4, changed: 5, cleaned: 6, event: 7 };
const setWords = 64;
const ready = 1;

/** What the slot's bytes say, what of each key lies on disk, and how many loads there were. */
const Word = { content: 100_000, disk: 100_010, loads: 100_020 } as const;

const names = {
  ...Object.fromEntries(Object.entries(Slot).map(([name, index]) => [index, name])),
  [setWords]: 'set lock',
  [setWords + 1]: 'set event',
  [Word.content]: 'content',
  [Word.loads]: 'loads',
  ...Object.fromEntries([1, 2, 3].map((key) => [Word.disk + key, `disk ${key}`])),
};

/** Seven slots pinned for ever; the first empty, or with the ready slice of key 1. */
function initial(isCached: boolean): Words {
  const words: Record<number, number> = {};
  for (let slot = 1; slot < 8; slot++) {
    words[slot * 8 + Slot.key] = 1000 + slot;
    words[slot * 8 + Slot.state] = ready;
    words[slot * 8 + Slot.pins] = 1;
  }
  for (const key of [1, 2, 3]) words[Word.disk + key] = key * 100;
  if (!isCached) return words;
  return { ...words, [Slot.key]: 2, [Slot.state]: ready, [Word.content]: 100 };
}

function newCache(memory: ThreadMemory): SliceCache {
  const plain = memory.words(0, wordCount);
  return new SliceCache(cacheMemory, (key) => key, undefined, { atomic: memory, plain });
}

function load(memory: ThreadMemory, key: number): () => Promise<void> {
  return () => {
    memory.add(Word.loads, 1);
    memory.store(Word.content, -1);
    memory.store(Word.content, memory.load(Word.disk + key));
    return Promise.resolve();
  };
}

/** Whether the slot's bytes are those of a key. */
function checkContent(memory: ThreadMemory, key: number): void {
  const content = memory.load(Word.content);
  assert.equal(Math.floor(content / 100), key, 'the bytes of another slice');
}

type Read = (memory: ThreadMemory, cache: SliceCache, slot: number, key: number) => void;

/** Reads under the slot's word, as a planned read does. */
const readsLocked: Read = (memory, cache, slot, key) => {
  memory.spin(() => {
    cache.lockShared(slot);
  });
  if (cache.holds(slot, key)) checkContent(memory, key);
  cache.unlockShared(slot);
};

/** Looks a slice up and reads it if it is there. */
function finder(key: number, read: Read = readsLocked): Program {
  return (memory) => {
    const cache = newCache(memory);
    const slot = memory.call(() => cache.find(key));
    if (slot >= 0) read(memory, cache, slot, key);
  };
}

/** Acquires slices one after the other, reads each and lets it go. */
function acquirer(...keys: readonly number[]): Program {
  return async (memory) => {
    const cache = newCache(memory);
    for (const key of keys) {
      const slot = await memory.retry(() => cache.acquire(key, load(memory, key)));
      memory.call(() => {
        assert.ok(cache.holds(slot, key), 'a pinned slot has lost its slice');
        checkContent(memory, key);
        cache.unpin(slot);
      });
    }
  };
}

function model(isCached: boolean, threads: Model['threads'], atEnd?: Model['atEnd']): Model {
  return {
    threads,
    names,
    initial: initial(isCached),
    atEnd: (load, results) => {
      assert.equal(load(Slot.pins), 0, 'a pin is left');
      assert.equal(load(Slot.lock), 0);
      atEnd?.(load, results);
    },
  };
}

testModel('a look-up and an eviction', model(true, { finder: finder(1), evicter: acquirer(2) }));
testModel(
  'a look-up of a slice that is being loaded',
  model(true, { finder: finder(2), loader: acquirer(2) }),
);
testModel(
  'two threads acquire one slice, which is loaded once',
  model(false, { one: acquirer(1), two: acquirer(1) }, (load) => {
    assert.equal(load(Word.loads), 1);
  }),
);
testModel(
  'two threads acquire different slices, and one waits for room',
  model(false, { one: acquirer(1), two: acquirer(2) }),
);
testModel(
  'two threads acquire different slices, one of them cached',
  model(true, { one: acquirer(1), two: acquirer(2) }),
);

testModel(
  'a load that fails beside one of the same slice',
  model(false, {
    fails: async (memory) => {
      try {
        await newCache(memory).acquire(1, () => Promise.reject(new Error('the load fails')));
      } catch (error) {
        if (!(error instanceof Error) || error.message !== 'the load fails') throw error;
        return;
      }
      newCache(memory).unpin(0);
    },
    loads: acquirer(1),
  }),
);

type Mark = (cache: SliceCache, slot: number) => void;

const marks: Mark = (cache, slot) => {
  cache.markDirty(slot);
};

/** Changes key 1 some times, wherever it is found, each time under the word. */
function changer(changes: number, mark = marks): Program {
  return (memory) => {
    const cache = newCache(memory);
    for (let change = 0; change < changes; change++) {
      memory.call(() => {
        const slot = cache.find(1);
        if (slot < 0) return;
        memory.spin(() => {
          cache.lockExclusive(slot);
        });
        if (cache.holds(slot, 1)) {
          memory.store(Word.content, memory.load(Word.content) + 1);
          mark(cache, slot);
        }
        cache.unlockExclusive(slot);
      });
    }
  };
}

/** Writes dirty slices back: as many changes of key 1 as their copies have. */
function writesBack(memory: ThreadMemory, cache: SliceCache): void {
  memory.call(() => {
    for (const copy of cache.copyDirty()) {
      memory.store(Word.disk + 1, 100 + copy.version);
      cache.markClean(copy);
    }
  });
}

/** Acquires key 2, for which key 1 has to go. */
const evicter: Program = async (memory) => {
  const cache = newCache(memory);
  cache.writeBack = () => {
    writesBack(memory, cache);
    memory.again();
    return Promise.resolve();
  };
  const slot = await memory.retry(() => cache.acquire(2, load(memory, 2)));
  memory.call(() => {
    checkContent(memory, 2);
    cache.unpin(slot);
  });
};

const flusher: Program = (memory) => {
  writesBack(memory, newCache(memory));
};

/** What is not dirty lies on disk as it was changed last. */
function checkChanges(load: (index: number) => number): void {
  const isDirty = load(Slot.changed) !== load(Slot.cleaned);
  const isEvicted = load(Slot.key) !== 2;
  if (isEvicted) assert.equal(load(Word.disk + 1), 100 + load(Slot.changed), 'a change is lost');
  else if (!isDirty) assert.equal(load(Word.disk + 1), load(Word.content), 'a change is lost');
}

testModel('changes beside a flush', model(true, { changer: changer(3), flusher }, checkChanges));
testModel(
  'a change beside an eviction',
  model(true, { changer: changer(1), evicter }, checkChanges),
);
testModel(
  'changes beside an eviction',
  model(true, { changer: changer(2), evicter }, checkChanges),
);

testWrongVariant(
  'changes that are marked before they are made, without the word',
  'wrong-end',
  model(
    true,
    {
      changer: (memory) => {
        const cache = newCache(memory);
        cache.markDirty(0);
        changer(1, () => undefined)(memory);
      },
      flusher: (memory) => {
        const cache = newCache(memory);
        for (const copy of cache.copyDirty()) {
          memory.store(Word.disk + 1, memory.load(Word.content));
          cache.markClean(copy);
        }
      },
    },
    checkChanges,
  ),
);
testWrongVariant(
  'a write-back that takes a slice as clean by what it is by then',
  'wrong-end',
  model(
    true,
    {
      changer: changer(2),
      flusher: (memory) => {
        const cache = newCache(memory);
        for (const copy of cache.copyDirty()) {
          memory.store(Word.disk + 1, 100 + copy.version);
          cache.markClean({ ...copy, version: memory.load(Slot.changed) });
        }
      },
    },
    checkChanges,
  ),
);
testWrongVariant(
  'a look-up that does not look again under the word',
  'threw',
  model(true, {
    finder: finder(1, (memory, cache, slot, key) => {
      cache.lockShared(slot);
      checkContent(memory, key);
      cache.unlockShared(slot);
    }),
    evicter: acquirer(2),
  }),
);
testWrongVariant(
  'a look-up that looks again without the word',
  'threw',
  model(true, {
    finder: finder(1, (memory, cache, slot, key) => {
      if (cache.holds(slot, key)) checkContent(memory, key);
    }),
    evicter: acquirer(2),
  }),
);
testWrongVariant(
  'a pin without the word',
  'threw',
  model(true, {
    finder: finder(1, (memory, cache, slot, key) => {
      if (!cache.holds(slot, key)) return;
      cache.pin(slot);
      checkContent(memory, key);
      cache.unpin(slot);
    }),
    evicter: acquirer(2),
  }),
);
testWrongVariant(
  'an eviction that does not look for pins again under the word',
  'threw',
  model(true, {
    one: acquirer(1),
    evicter: (memory) => {
      const cache = newCache(memory);
      if (memory.load(Slot.pins) !== 0) return;
      cache.lockExclusive(0);
      memory.store(Slot.key, 0);
      memory.store(Slot.state, 0);
      cache.unlockExclusive(0);
    },
  }),
);
testWrongVariant(
  'a slot that is let go of without a wake',
  'stuck',
  model(false, {
    one: async (memory) => {
      await newCache(memory).acquire(1, load(memory, 1));
      memory.add(Slot.pins, -1);
    },
    two: acquirer(2),
  }),
);
