/** Atomic memory on a SharedArrayBuffer: what the locks run on outside the tests. */
import type { AtomicMemory } from './atomic-memory.js';
import type { Poison } from './poison.js';
import type { WordWatch } from './watchdog.js';

const spinsBeforeParking = 200;
const parkMs = 1;
/** How often a waiting request looks whether the thread it waits for has died. */
const poisonCheckMs = 100;
/**
 * How long a spinning word is waited for that never changes: nobody who is alive holds one for longer
 * than some writes to memory take.
 */
const spinLimitMs = 60_000;
const longTimerMs = 0x7fffffff;

/**
 * `Atomics.waitAsync` does not keep Node's loop alive: while requests wait, a timer does.
 */
const alive = {
  waits: 0,
  timer: undefined as NodeJS.Timeout | undefined,
  hold(): void {
    if (this.waits++ === 0) this.timer = setInterval(() => undefined, longTimerMs);
  },
  release(): void {
    if (--this.waits === 0) clearInterval(this.timer);
  },
};

/** One thread's view of shared words. */
export class SharedWords implements AtomicMemory {
  readonly #words: Int32Array;
  readonly #poison: Poison | undefined;
  readonly #watch: WordWatch | undefined;
  readonly #mostParks: number;
  /** How often the spinning word waited for right now has not changed for as long as waiting parks. */
  #parks = 0;

  /**
   * @param poison tells when waiting is in vain; left out, waiting never fails
   * @param watch hears of waits that last
   * @param deadMs how long a spinning word that nobody changes is waited for, in milliseconds
   */
  constructor(words: Int32Array, poison?: Poison, watch?: WordWatch, deadMs = spinLimitMs) {
    this.#mostParks = deadMs / parkMs;
    this.#words = words;
    this.#poison = poison;
    this.#watch = watch;
  }

  load(index: number): number {
    return Atomics.load(this.#words, index);
  }

  store(index: number, value: number): void {
    Atomics.store(this.#words, index, value);
  }

  add(index: number, delta: number): number {
    return Atomics.add(this.#words, index, delta);
  }

  or(index: number, bits: number): number {
    return Atomics.or(this.#words, index, bits);
  }

  clear(index: number, bits: number): number {
    return Atomics.and(this.#words, index, ~bits);
  }

  exchange(index: number, value: number): number {
    return Atomics.exchange(this.#words, index, value);
  }

  compareExchange(index: number, expected: number, value: number): number {
    return Atomics.compareExchange(this.#words, index, expected, value);
  }

  pause(index: number, seen: number, spins: number): void {
    if (spins % spinsBeforeParking !== 0) return;
    this.#poison?.check();
    if (spins === spinsBeforeParking) this.#parks = 0;
    // Parks, not a clock, which goes on while the whole program is stopped.
    const hasChanged = Atomics.wait(this.#words, index, seen, parkMs) !== 'timed-out';
    this.#parks = hasChanged ? 0 : this.#parks + 1;
    if (this.#parks < this.#mostParks) return;
    this.#poison?.set();
    this.#poison?.check();
  }

  async wait(index: number, seen: number): Promise<void> {
    const waiting = Atomics.waitAsync(this.#words, index, seen, poisonCheckMs);
    if (waiting.async) {
      alive.hold();
      try {
        if ((await waiting.value) === 'ok') this.#watch?.woken(index);
        else this.#watch?.timedOut(index, poisonCheckMs);
      } finally {
        alive.release();
      }
    } else {
      this.#watch?.woken(index);
    }
    this.#poison?.check();
  }

  notify(index: number): void {
    Atomics.notify(this.#words, index);
  }
}
