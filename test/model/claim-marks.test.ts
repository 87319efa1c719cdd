/**
 * Model of claims: writers of new clusters of one slice, as the writer plans, links and ends its
 * claims. Of those on one cluster exactly one allocates; those on others go on beside it.
 */
import assert from 'node:assert/strict';
import { ClaimMarks } from '../../src/engine/cache/claim-marks.js';
import { SliceWorkQueues } from '../../src/engine/cache/slice-work-queues.js';
import { lockExclusive, unlockExclusive } from '../../src/engine/words/spin-word.js';
import type { Model } from './explorer.js';
import { testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

/** The words of the slot, its marks, its two entries, and how many host clusters were taken. */
const Word = { lock: 0, event: 1, pins: 2, marks: 3, entries: 4, taken: 6 } as const;

/** What a writer does differently where it is a wrong one. */
interface Variant {
  /** Looks for a claim before it has the lock. */
  readonly looksOutside?: boolean;
  /** Marks and unmarks without the lock. */
  readonly unlocked?: boolean;
  readonly wakesFirst?: boolean;
  /** Ends the claim before it links the cluster. */
  readonly endsFirst?: boolean;
}

function locked<Value>(memory: ThreadMemory, section: () => Value): Value {
  memory.spin(() => {
    lockExclusive(memory, Word.lock);
  });
  const value = section();
  unlockExclusive(memory, Word.lock);
  return value;
}

type Plan = { readonly waitFor: number } | 'in place' | 'allocate';

/** Writes to the cluster of an entry. @returns whether it allocated it */
function writer(entry: number, variant: Variant = {}): Program {
  return async (memory) => {
    const queues = new SliceWorkQueues(memory, Word.event, 1);
    const claims = new ClaimMarks(memory.words(Word.marks, 2), 1);
    const maybeLocked = <Value>(section: () => Value): Value =>
      variant.unlocked === true ? section() : locked(memory, section);
    const decide = (isClaimed: boolean): Plan => {
      if (isClaimed) return { waitFor: queues.announce(0) };
      if (memory.load(Word.entries + entry) !== 0) return 'in place';
      claims.add(0, entry, 1);
      memory.add(Word.pins, 1);
      return 'allocate';
    };
    const plan = (): Plan => {
      if (variant.looksOutside !== true) return maybeLocked(() => decide(claims.has(0, entry)));
      const isClaimed = claims.has(0, entry);
      return locked(memory, () => decide(isClaimed));
    };
    const end = (): void => {
      maybeLocked(() => {
        claims.remove(0, entry, 1);
      });
    };
    for (;;) {
      const planned = memory.call(plan);
      if (planned === 'in place') return false;
      if (planned === 'allocate') break;
      await queues.wait(0, planned.waitFor);
    }
    memory.call(() => {
      if (variant.wakesFirst === true) queues.wake(0);
      if (variant.endsFirst === true) end();
      const cluster = memory.add(Word.taken, 1) + 1;
      locked(memory, () => {
        memory.store(Word.entries + entry, cluster);
      });
      if (variant.endsFirst !== true) end();
      if (variant.wakesFirst !== true) queues.wake(0);
      memory.add(Word.pins, -1);
    });
    return true;
  };
}

function model(clusters: number, threads: Model['threads'], spuriousWakes = 0): Model {
  return {
    threads,
    spuriousWakes,
    names: {
      [Word.lock]: 'lock',
      [Word.event]: 'event',
      [Word.pins]: 'pins',
      [Word.marks]: 'marks',
      [Word.entries]: 'entry 0',
      [Word.entries + 1]: 'entry 1',
      [Word.taken]: 'taken',
    },
    atEnd: (load, allocated) => {
      assert.equal(load(Word.taken), clusters, 'clusters taken');
      assert.equal(allocated.filter((one) => one === true).length, clusters, 'who allocated');
      assert.equal(load(Word.marks), 0, 'a claim is left');
      assert.equal(load(Word.pins), 0, 'a pin is left');
    },
  };
}

testModel('two writers of one cluster', model(1, { one: writer(0), two: writer(0) }));
testModel('writers of two clusters', model(2, { one: writer(0), two: writer(1) }));
testModel(
  'three writers of one cluster',
  model(1, { one: writer(0), two: writer(0), three: writer(0) }),
);
testModel(
  'two writers of one cluster, one of another',
  model(2, { one: writer(0), two: writer(0), other: writer(1) }),
);
testModel(
  'three writers of one cluster, of which some wake for no reason',
  model(1, { one: writer(0), two: writer(0), three: writer(0) }, 2),
);

testWrongVariant(
  'a writer that looks for a claim before it has the lock',
  'threw',
  model(1, { one: writer(0, { looksOutside: true }), two: writer(0, { looksOutside: true }) }),
);
testWrongVariant(
  'writers that mark without the lock',
  'threw',
  model(2, { one: writer(0, { unlocked: true }), two: writer(1, { unlocked: true }) }),
);
testWrongVariant(
  'a claim whose end is told before it is',
  'stuck',
  model(1, { one: writer(0, { wakesFirst: true }), two: writer(0, { wakesFirst: true }) }),
);
testWrongVariant(
  'a claim that ends before the cluster is linked',
  'wrong-end',
  model(1, { one: writer(0, { endsFirst: true }), two: writer(0, { endsFirst: true }) }),
);
