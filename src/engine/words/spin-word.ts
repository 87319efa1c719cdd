/**
 * The spinning reader-writer lock in one shared word, for memory-only critical sections.
 * Nothing may await, allocate a promise or do I/O between taking and releasing it.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from './atomic-memory.js';

const writerBit = 0x40000000;

/** Takes the word for reading; any number of readers may hold it. */
export function lockShared(memory: AtomicMemory, index: number): void {
  for (let spins = 1; ; spins++) {
    const seen = memory.load(index);
    if ((seen & writerBit) !== 0) memory.pause(index, seen, spins);
    else if (memory.compareExchange(index, seen, seen + 1) === seen) return;
  }
}

/** Gives back what `lockShared` took. */
export function unlockShared(memory: AtomicMemory, index: number): void {
  const seen = memory.add(index, -1);
  assert(seen > 0 && seen < writerBit, 'a word is given back that nobody holds for reading');
}

/** Takes the word for writing; waits for every reader to leave. */
export function lockExclusive(memory: AtomicMemory, index: number): void {
  for (let spins = 1; ; spins++) {
    const seen = memory.compareExchange(index, 0, writerBit);
    if (seen === 0) return;
    memory.pause(index, seen, spins);
  }
}

/** Gives back what `lockExclusive` took. */
export function unlockExclusive(memory: AtomicMemory, index: number): void {
  const seen = memory.exchange(index, 0);
  assert(seen === writerBit, 'a word is given back that nobody holds for writing');
}
