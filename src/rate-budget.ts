/**
 * Rates without a lock: a budget is one shared word, the time up to which its rate has been spent; who needs
 * something moves it on by what it costs, and waits until that time less the burst allowed (the generic cell
 * rate algorithm, ITU-T I.371). Nothing here may import another layer.
 */

/** Words of 32 bits that several threads share, as far as budgets need them. */
export interface BudgetMemory {
  load(index: number): number;
  /** Stores `value` where the word is `expected`. @returns what it was before */
  compareExchange(index: number, expected: number, value: number): number;
}

/**
 * Milliseconds that nobody waits for: a time further ahead is one that has wrapped. A request that costs
 * more counts as so much.
 */
const longestWaitMs = 3_600_000;
const defaultBurstMs = 100;

/** One rate and its word of shared memory. */
export class RateBudget {
  readonly #memory: BudgetMemory;
  readonly #index: number;
  readonly #perMs: number;
  readonly #burstMs: number;
  /** Part of a millisecond that was spent and is not in the word yet. */
  #carriedMs = 0;

  /**
   * @param index of its word, which is zero at first
   * @param burst what may come at once after a pause; default a tenth of a second's
   */
  constructor(memory: BudgetMemory, index: number, perSecond: number, burst: number | undefined) {
    this.#memory = memory;
    this.#index = index;
    this.#perMs = perSecond / 1000;
    this.#burstMs = burst === undefined ? defaultBurstMs : burst / this.#perMs;
  }

  /**
   * Spends an amount; one that is more than the burst is let through, and those after it wait.
   *
   * @param nowMs of a clock that all threads share, as a signed word
   * @returns milliseconds to wait before going on
   */
  spend(amount: number, nowMs: number): number {
    return Math.max(0, this.#take(amount, nowMs) - this.#burstMs);
  }

  /** The same where an amount has to wait for what it costs itself: never is more than the burst let through. */
  spendAhead(amount: number, nowMs: number): number {
    const aheadMs = this.#take(amount, nowMs) + amount / this.#perMs;
    return Math.min(longestWaitMs, Math.max(0, aheadMs - this.#burstMs));
  }

  /** Moves the time on. @returns how far ahead of now it was, in milliseconds */
  #take(amount: number, nowMs: number): number {
    const cost = amount / this.#perMs + this.#carriedMs;
    const whole = Math.floor(cost);
    this.#carriedMs = cost - whole;
    for (;;) {
      const seen = this.#memory.load(this.#index);
      const difference = (seen - nowMs) | 0;
      const aheadMs = difference > 0 && difference < longestWaitMs ? difference : 0;
      const next = (nowMs + Math.min(aheadMs + whole, longestWaitMs - 1)) | 0;
      if (this.#memory.compareExchange(this.#index, seen, next) === seen) return aheadMs;
    }
  }
}
