/**
 * A mutual exclusion that may be held over I/O. Two levels: a local one among this thread's
 * requests, and a shared word among threads, which at most one waiter a thread contends for.
 */
import { Mutex } from 'async-mutex';

const free = 0;
const held = 1;

/** A mutex in one word of shared memory. */
export class LongMutex {
  readonly #local = new Mutex();
  readonly #words: Int32Array;
  readonly #index: number;

  constructor(words: Int32Array, index: number) {
    this.#words = words;
    this.#index = index;
  }

  /** Runs `section` while no one else holds the mutex, and gives its result. */
  async runExclusive<Result>(section: () => Promise<Result>): Promise<Result> {
    return this.#local.runExclusive(async () => {
      await this.#takeWord();
      try {
        return await section();
      } finally {
        Atomics.store(this.#words, this.#index, free);
        Atomics.notify(this.#words, this.#index, 1);
      }
    });
  }

  async #takeWord(): Promise<void> {
    while (Atomics.compareExchange(this.#words, this.#index, free, held) !== free) {
      await Atomics.waitAsync(this.#words, this.#index, held).value;
    }
  }
}
