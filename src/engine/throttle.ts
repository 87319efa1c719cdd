/** Throttling without a lock: the limits of requests, each a budget of shared memory. */
import { monotonicMs } from '../clock.js';
import { RateBudget } from '../rate-budget.js';
import type { AtomicMemory } from './words/atomic-memory.js';

/** What requests may use. Left out, a rate is unlimited. */
export interface ThrottleOptions {
  readonly operationsPerSecond?: number | undefined;
  readonly bytesPerSecond?: number | undefined;
  /** Operations that may come at once after a pause; default a tenth of a second's. */
  readonly operationsBurst?: number | undefined;
  /** Bytes that may come at once after a pause; default a tenth of a second's. */
  readonly bytesBurst?: number | undefined;
}

/** Words of shared memory that one throttle needs. */
export const throttleWords = 2;

/** The limits of one image or of one queue. */
export class Throttle {
  readonly #operations: RateBudget | undefined;
  readonly #bytes: RateBudget | undefined;
  readonly #now: () => number;

  /**
   * @param memory `throttleWords` words, zero at first, which every thread of an image shares
   * @param now milliseconds of a clock that all threads share
   */
  constructor(memory: AtomicMemory, options: ThrottleOptions, now = monotonicMs) {
    const { operationsPerSecond, bytesPerSecond, operationsBurst, bytesBurst } = options;
    if (operationsPerSecond !== undefined) {
      this.#operations = new RateBudget(memory, 0, operationsPerSecond, operationsBurst);
    }
    if (bytesPerSecond !== undefined) {
      this.#bytes = new RateBudget(memory, 1, bytesPerSecond, bytesBurst);
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
