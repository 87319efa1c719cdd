/**
 * An event that recurs, in one shared word: a count of how often it has happened, above a bit that
 * says whether anyone waits, so that an event nobody waits for costs one load.
 *
 * Who waits announces itself first, then looks whether what it waits for is still outstanding, and
 * only then waits; or it announces itself under the lock that the event's cause is guarded by.
 */
import type { AtomicMemory } from './atomic-memory.js';

const awaitedBit = 1;

/** Says that somebody is about to wait. @returns what `memory.wait` takes as seen */
export function announceWait(memory: AtomicMemory, index: number): number {
  return memory.or(index, awaitedBit) | awaitedBit;
}

/** Notes that the event has happened; call after its cause is visible to others. */
export function raiseEvent(memory: AtomicMemory, index: number): void {
  const seen = memory.load(index);
  if ((seen & awaitedBit) === 0) return;
  // Adding one clears the bit and counts. Who fails was overtaken by another event, which woke all.
  if (memory.compareExchange(index, seen, (seen + awaitedBit) | 0) === seen) memory.notify(index);
}
