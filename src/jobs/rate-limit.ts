/** A limit on bytes a second, kept by letting each taker wait for its turn. */

/** Hands out bytes at a steady rate. */
export class RateLimit {
  readonly #bytesPerMs: number;
  #nextMs = 0;

  /** @param bytesPerSecond at least 1 */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Resolves when `bytes` bytes may be moved. */
  async take(bytes: number): Promise<void> {
    const now = performance.now();
    const turn = Math.max(now, this.#nextMs);
    this.#nextMs = turn + bytes / this.#bytesPerMs;
    if (turn > now) await new Promise((resolve) => setTimeout(resolve, turn - now));
  }
}
