/**
 * Buffers of one size that are used again, so that steady work neither zeroes nor collects memory; and
 * never more than so many, so that whoever asks for another waits instead of taking all there is.
 */

/** Lends buffers of `bytes` bytes, at most `most` at a time. */
export class BufferPool {
  readonly #bytes: number;
  readonly #most: number;
  readonly #spare: Uint8Array[] = [];
  /** Who waits for a buffer, in the order of asking. */
  readonly #waiting: ((buffer: Uint8Array) => void)[] = [];
  #made = 0;

  constructor(bytes: number, most: number) {
    this.#bytes = bytes;
    this.#most = most;
  }

  /** Whether the next that asks has to wait. */
  get isAllLent(): boolean {
    return this.#spare.length === 0 && this.#made >= this.#most;
  }

  /** Whether somebody waits. */
  get isAwaited(): boolean {
    return this.#waiting.length > 0;
  }

  /** A buffer with whatever it held before, for whoever has asked first. It has to be given back. */
  async lend(): Promise<Uint8Array> {
    if (this.isAllLent) return await new Promise((lent) => this.#waiting.push(lent));
    const spare = this.#spare.pop();
    if (spare !== undefined) return spare;
    const made = new Uint8Array(this.#bytes);
    this.#made += 1;
    return made;
  }

  /** Takes a lent buffer back, which nobody may use any more. */
  giveBack(buffer: Uint8Array): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#spare.push(buffer);
    else next(buffer);
  }
}
