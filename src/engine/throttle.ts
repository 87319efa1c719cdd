/**
 * Throttling without a lock: each budget is one shared word, the time up to which its rate has been
 * spent; a request moves it on by what it costs, and waits until that time less the burst allowed
 * (the generic cell rate algorithm, ITU-T I.371).
 */
import type { AtomicMemory } from './atomic-memory.js';
import { monotonicMs } from './clock.js';
import { isBefore } from './epochs.js';

/** What requests may use. Left out, a rate is unlimited. */
export interface ThrottleOptions {
  readonly operationsPerSecond?: number | undefined;
  readonly bytesPerSecond?: number | undefined;
  /** Operations that may come at once after a pause; default a tenth of a second's. */
  readonly operationsBurst?: number | undefined;
  /** Bytes that may come at once after a pause; default a tenth of a second's. */
  readonly bytesBurst?: number | undefined;
}

/**
 * Milliseconds that nobody waits for: a time further ahead is one that has wrapped. A request that costs
 * more counts as so much.
 */
const longestWaitMs = 3_600_000;
const defaultBurstMs = 100;

/** One rate and its word of shared memory. */
class Budget {
  readonly #memory: AtomicMemory;
  readonly #index: number;
  readonly #perMs: number;
  readonly #burstMs: number;
  /** Part of a millisecond that was spent and is not in the word yet. */
  #carriedMs = 0;

  constructor(memory: AtomicMemory, index: number, perSecond: number, burst: number | undefined) {
    this.#memory = memory;
    this.#index = index;
    this.#perMs = perSecond / 1000;
    this.#burstMs = burst === undefined ? defaultBurstMs : burst / this.#perMs;
  }

  /** Spends an amount. @returns milliseconds to wait before going on */
  spend(amount: number, nowMs: number): number {
    const cost = amount / this.#perMs + this.#carriedMs;
    const whole = Math.floor(cost);
    this.#carriedMs = cost - whole;
    for (;;) {
      const seen = this.#memory.load(this.#index);
      const ahead = (seen - nowMs) | 0;
      const begin = isBefore(nowMs, seen) && ahead < longestWaitMs ? seen : nowMs;
      const debt = Math.min(((begin - nowMs) | 0) + whole, longestWaitMs - 1);
      const next = (nowMs + debt) | 0;
      if (this.#memory.compareExchange(this.#index, seen, next) === seen) {
        return Math.max(0, ((begin - nowMs) | 0) - this.#burstMs);
      }
    }
  }
}

/** Words of shared memory that one throttle needs. */
export const throttleWords = 2;

/** The limits of one image or of one queue. */
export class Throttle {
  readonly #operations: Budget | undefined;
  readonly #bytes: Budget | undefined;
  readonly #now: () => number;

  /**
   * @param memory `throttleWords` words, zero at first, which every thread of an image shares
   * @param now milliseconds of a clock that all threads share
   */
  constructor(memory: AtomicMemory, options: ThrottleOptions, now = monotonicMs) {
    const { operationsPerSecond, bytesPerSecond, operationsBurst, bytesBurst } = options;
    if (operationsPerSecond !== undefined) {
      this.#operations = new Budget(memory, 0, operationsPerSecond, operationsBurst);
    }
    if (bytesPerSecond !== undefined) {
      this.#bytes = new Budget(memory, 1, bytesPerSecond, bytesBurst);
    }
    this.#now = now;
  }

  /** Spends what a request of `bytes` bytes needs. @returns milliseconds to wait before it starts */
  spend(bytes: number): number {
    const now = this.#now() | 0;
    const forOperation = this.#operations?.spend(1, now) ?? 0;
    return Math.max(forOperation, this.#bytes?.spend(bytes, now) ?? 0);
  }
}
