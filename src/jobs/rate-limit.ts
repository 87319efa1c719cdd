/** A limit on bytes a second, kept by letting each taker wait for its turn. */
import { setTimeout } from 'node:timers/promises';

/** Timers take no longer times. */
const longestMs = 2 ** 31 - 1;

/** Hands out bytes at a steady rate. */
export class RateLimit {
  readonly #bytesPerMs: number;
  #nextMs = 0;
  /** The last taker's turn; one waits for a time at a time. */
  #lastTurn: Promise<void> = Promise.resolve();

  /** @param bytesPerSecond at least 1 */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Resolves when `bytes` bytes may be moved; rejects if the signal aborts before. */
  take(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const turn = this.#lastTurn.then(() => this.#wait(bytes, signal));
    this.#lastTurn = turn.catch(() => undefined);
    return turn;
  }

  async #wait(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const now = performance.now();
    const start = Math.max(now, this.#nextMs);
    this.#nextMs = start + bytes / this.#bytesPerMs;
    for (let left = start - now; left > 0; left = start - performance.now()) {
      await setTimeout(Math.min(left, longestMs), undefined, signal && { signal });
    }
  }
}
