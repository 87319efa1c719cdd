/**
 * The few operations on shared words that every lock of the engine is made of. All are sequentially
 * consistent, as those of `Atomics` are. The locks know only this interface, so that the model
 * explorer of the tests can run every interleaving of them.
 */

/** Words of 32 bits, signed, that several threads share. */
export interface AtomicMemory {
  load(index: number): number;
  store(index: number, value: number): void;
  /** Adds to a word, which wraps. @returns what it was before */
  add(index: number, delta: number): number;
  /** Sets bits of a word. @returns what it was before */
  or(index: number, bits: number): number;
  /** Clears bits of a word. @returns what it was before */
  clear(index: number, bits: number): number;
  exchange(index: number, value: number): number;
  /** Stores `value` where the word is `expected`. @returns what it was before */
  compareExchange(index: number, expected: number, value: number): number;
  /**
   * Gives way for a moment while a word is `seen`: its holder may have lost its core.
   *
   * @param spins how often the caller has asked in vain, from 1
   * @throws if the memory can no longer be trusted
   */
  pause(index: number, seen: number, spins: number): void;
  /**
   * Resolves once a word may be something else than `seen`: at once if it is, else at the next
   * `notify` of it; now and then for no reason.
   *
   * @throws if the memory can no longer be trusted
   */
  wait(index: number, seen: number): Promise<void>;
  /** Wakes all who wait for a word. */
  notify(index: number): void;
  /** Notes, for whoever waits in vain, that this thread holds a lock, or is about to give it back. */
  noteHolder?(index: number, holds: boolean): void;
  /** Watches a wait for a lock that a request of this same thread holds. */
  watch?<Result>(index: number, turn: Promise<Result>): Promise<Result>;
}
