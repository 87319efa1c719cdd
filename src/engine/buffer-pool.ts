/** Buffers of one size that are used again, so that steady work neither zeroes nor collects memory. */

/** Lends buffers of `bytes` bytes. */
export class BufferPool {
  readonly #bytes: number;
  readonly #most: number;
  readonly #spare: Uint8Array[] = [];

  /** @param most buffers kept while nobody uses them */
  constructor(bytes: number, most: number) {
    this.#bytes = bytes;
    this.#most = most;
  }

  /** A buffer with whatever it held before. */
  lend(): Uint8Array {
    return this.#spare.pop() ?? new Uint8Array(this.#bytes);
  }

  /** Takes a lent buffer back, which nobody may use any more. */
  giveBack(buffer: Uint8Array): void {
    if (this.#spare.length < this.#most) this.#spare.push(buffer);
  }
}
