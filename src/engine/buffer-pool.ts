/**
 * Buffers of one size that are used again, so that steady work neither zeroes nor collects memory; and
 * never more than so many, so that whoever asks for another waits instead of taking all there is.
 */
import type { DescribeWait, Watchdog } from './words/watchdog.js';

/** Lends buffers of `bytes` bytes, at most `most` at a time. */
export class BufferPool {
  readonly #bytes: number;
  readonly #most: number;
  readonly #watchdog: Watchdog | undefined;
  readonly #spare: Uint8Array[] = [];
  /** What each lent buffer is used for, longest lent first. */
  readonly #uses = new Map<Uint8Array, DescribeWait>();
  /** Who waits for a buffer, in the order of asking. */
  readonly #waiting: ((buffer: Uint8Array) => void)[] = [];
  #made = 0;

  /** @param watchdog hears of waits for a buffer that last */
  constructor(bytes: number, most: number, watchdog?: Watchdog) {
    this.#bytes = bytes;
    this.#most = most;
    this.#watchdog = watchdog;
  }

  /** Whether the next that asks has to wait. */
  get isAllLent(): boolean {
    return this.#spare.length === 0 && this.#made >= this.#most;
  }

  /** Whether somebody waits. */
  get isAwaited(): boolean {
    return this.#waiting.length > 0;
  }

  /**
   * A buffer with whatever it held before, for whoever has asked first. It has to be given back.
   *
   * @param use says what for, to whoever waits in vain meanwhile
   */
  async lend(use: DescribeWait): Promise<Uint8Array> {
    const buffer = this.isAllLent ? await this.#wait() : (this.#spare.pop() ?? this.#make());
    this.#uses.set(buffer, use);
    return buffer;
  }

  /** Takes a lent buffer back, which nobody may use any more. */
  giveBack(buffer: Uint8Array): void {
    this.#uses.delete(buffer);
    const next = this.#waiting.shift();
    if (next === undefined) this.#spare.push(buffer);
    else next(buffer);
  }

  #make(): Uint8Array {
    this.#made += 1;
    return new Uint8Array(this.#bytes);
  }

  #wait(): Promise<Uint8Array> {
    const lent = new Promise<Uint8Array>((resolve) => this.#waiting.push(resolve));
    return this.#watchdog?.watch(lent, () => this.#describe()) ?? lent;
  }

  #describe(): string {
    const use = this.#uses.values().next().value;
    const longest = use === undefined ? '' : `, for longest to ${use()}`;
    return `one of ${this.#most} buffers, all of which are lent${longest}`;
  }
}
