/** Model of membership: an image is ended exactly once, and nobody joins it afterwards. */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';
import { join, leave } from '../../src/engine/queues/members.js';
import type { Model } from './explorer.js';
import { extraRounds, testModel, testWrongVariant } from './report.js';
import type { Program, ThreadMemory } from './thread-program.js';

const Word = { members: 0, ended: 1 } as const;

interface Membership {
  readonly join: (memory: AtomicMemory) => boolean;
  readonly leave: (memory: AtomicMemory) => boolean;
}

function leaves(memory: ThreadMemory, { leave }: Membership): void {
  if (leave(memory)) memory.add(Word.ended, 1);
}

const opener =
  (membership: Membership = { join, leave }): Program =>
  (memory) => {
    leaves(memory, membership);
  };

/** Joins, works and leaves, some times. */
function joiner(rounds: number, membership: Membership = { join, leave }): Program {
  return (memory) => {
    for (let round = 0; round < rounds; round++) {
      memory.call(() => {
        if (!membership.join(memory)) return;
        assert.equal(memory.load(Word.ended), 0, 'somebody works on an image that is ended');
        leaves(memory, membership);
      });
    }
  };
}

function model(threads: Model['threads']): Model {
  return {
    threads,
    initial: { [Word.members]: 1 },
    names: { [Word.members]: 'members', [Word.ended]: 'ended' },
    atEnd: (load) => {
      assert.equal(load(Word.members), 0);
      assert.equal(load(Word.ended), 1, 'the image is to be ended once');
    },
  };
}

const rounds = 2 + extraRounds;

testModel('the last leave and a join', model({ opener: opener(), joiner: joiner(rounds) }));
testModel(
  'the last leave and joins of two threads',
  model({ opener: opener(), one: joiner(rounds), two: joiner(rounds) }),
);

const wrong = (variant: Partial<Membership>): Model => {
  const membership = { join, leave, ...variant };
  return model({ opener: opener(membership), joiner: joiner(1, membership) });
};

testWrongVariant(
  'a leave that loads and then stores',
  'threw',
  wrong({
    leave: (memory) => {
      const seen = memory.load(Word.members);
      memory.store(Word.members, seen - 1);
      return seen === 1;
    },
  }),
);
testWrongVariant(
  'a leave that looks afterwards whether it was the last',
  'wrong-end',
  wrong({
    leave: (memory) => {
      memory.add(Word.members, -1);
      return memory.load(Word.members) === 0;
    },
  }),
);
testWrongVariant(
  'a join that looks and then adds',
  'threw',
  wrong({
    join: (memory) => {
      if (memory.load(Word.members) === 0) return false;
      memory.add(Word.members, 1);
      return true;
    },
  }),
);
