/** A limit on bytes a second, kept by letting each taker wait for its turn. */
import { setTimeout } from 'node:timers/promises';

/** Hands out bytes at a steady rate. */
export class RateLimit {
  readonly #bytesPerMs: number;
  #nextMs = 0;

  /** @param bytesPerSecond at least 1 */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Resolves when `bytes` bytes may be moved; rejects if the signal aborts before. */
  async take(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const now = performance.now();
    const turn = Math.max(now, this.#nextMs);
    this.#nextMs = turn + bytes / this.#bytesPerMs;
    if (turn > now) await setTimeout(turn - now, undefined, signal && { signal });
  }
}
