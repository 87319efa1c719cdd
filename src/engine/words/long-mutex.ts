/**
 * A mutual exclusion that may be held over I/O. Two levels: a local one among this thread's
 * requests, and a shared word among threads, which at most one waiter a thread contends for.
 */
import { Mutex } from 'async-mutex';
import type { AtomicMemory } from './atomic-memory.js';
import { releaseMutexWord, takeMutexWord } from './mutex-word.js';

/** A mutex in one word of shared memory. */
export class LongMutex {
  readonly #local = new Mutex();
  readonly #memory: AtomicMemory;
  readonly #index: number;

  constructor(memory: AtomicMemory, index: number) {
    this.#memory = memory;
    this.#index = index;
  }

  /** Runs `section` while no one else holds the mutex, and gives its result. */
  async runExclusive<Result>(section: () => Promise<Result>): Promise<Result> {
    const isHeld = this.#local.isLocked();
    const turn = this.#local.acquire();
    const watched = isHeld ? this.#memory.watch?.(this.#index, turn) : undefined;
    const leave = await (watched ?? turn);
    try {
      await takeMutexWord(this.#memory, this.#index);
      try {
        return await section();
      } finally {
        releaseMutexWord(this.#memory, this.#index);
      }
    } finally {
      leave();
    }
  }
}
