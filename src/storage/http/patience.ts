/** How long an answer is waited for. */

/** Bytes a second below which a server counts as having stopped, over several timeouts. */
const slowestBytesPerSecond = 4096;

/** Waits for an answer that has to go on, and to come to its end. */
export class Patience {
  readonly #idle: NodeJS.Timeout;
  readonly #whole: NodeJS.Timeout;

  /**
   * @param length bytes that are to come
   * @param timeoutMs milliseconds in which some of them have to come
   * @param onStopped what is done once if they do not
   */
  constructor(length: number, timeoutMs: number, onStopped: () => void) {
    const slowest = 3 * timeoutMs + (length / slowestBytesPerSecond) * 1000;
    this.#idle = setTimeout(onStopped, timeoutMs);
    this.#whole = setTimeout(onStopped, slowest);
  }

  /** Some bytes came. */
  goesOn(): void {
    this.#idle.refresh();
  }

  end(): void {
    clearTimeout(this.#idle);
    clearTimeout(this.#whole);
  }
}
