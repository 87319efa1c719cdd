/** Who has an image open: threads join and leave at any time, and the last to leave ends it. */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../words/atomic-memory.js';

const count = 0;

/** Makes the shared word of an image that one thread has just opened. */
export function allocateMembers(): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(4));
  words[count] = 1;
  return words;
}

/** Joins, unless the last member has left. @returns whether it did */
export function join(memory: AtomicMemory): boolean {
  for (;;) {
    const seen = memory.load(count);
    if (seen === 0) return false;
    if (memory.compareExchange(count, seen, seen + 1) === seen) return true;
  }
}

/** Leaves. @returns whether this was the last member, after which nobody can join */
export function leave(memory: AtomicMemory): boolean {
  const members = memory.add(count, -1);
  assert(members > 0, 'more members leave than have joined');
  return members === 1;
}

/** How many members there are right now. */
export function memberCount(memory: AtomicMemory): number {
  return memory.load(count);
}
