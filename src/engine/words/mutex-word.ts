/**
 * The shared half of a long mutex: one word that says whether some thread holds it, and whether
 * others wait, so that a release without waiters wakes nobody.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from './atomic-memory.js';

const State = { free: 0, held: 1, awaited: 2 } as const;

/** Takes the word, waiting for whoever holds it. */
export async function takeMutexWord(memory: AtomicMemory, index: number): Promise<void> {
  if (memory.compareExchange(index, State.free, State.held) !== State.free) {
    // Who has waited takes it as awaited: it cannot know whether it was the only one.
    while (memory.exchange(index, State.awaited) !== State.free) {
      await memory.wait(index, State.awaited);
    }
  }
  memory.noteHolder?.(index, true);
}

/** Gives back what `takeMutexWord` took. */
export function releaseMutexWord(memory: AtomicMemory, index: number): void {
  memory.noteHolder?.(index, false);
  const seen = memory.exchange(index, State.free);
  assert(seen !== State.free, 'a mutex is given back that nobody holds');
  if (seen === State.awaited) memory.notify(index);
}
