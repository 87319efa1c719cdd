/** A piece of shared state that a lock is to protect, which tells when the lock does not. */
import type { ThreadMemory } from './thread-program.js';

/** Two plain words that writers change one after the other, and readers find equal. */
export class Section {
  readonly #first: number;
  readonly #second: number;

  /** @param first the index of the first of its two words */
  constructor(first: number) {
    this.#first = first;
    this.#second = first + 1;
  }

  get names(): Readonly<Record<number, string>> {
    return { [this.#first]: 'first', [this.#second]: 'second' };
  }

  /** Counts up; a writer who comes in between loses its count, or finds the words differing. */
  write(memory: ThreadMemory): void {
    memory.call(() => {
      const value = memory.load(this.#first);
      memory.store(this.#first, value + 1);
      const second = memory.load(this.#second);
      if (second !== value) throw new Error('a writer is not alone');
      memory.store(this.#second, value + 1);
    });
  }

  read(memory: ThreadMemory): void {
    memory.call(() => {
      const value = memory.load(this.#first);
      if (memory.load(this.#second) !== value) throw new Error('a reader sees a writer at work');
    });
  }

  /** @throws if not every write has counted */
  checkEnd(load: (index: number) => number, writes: number): void {
    for (const index of [this.#first, this.#second]) {
      if (load(index) !== writes) throw new Error(`${load(index)} of ${writes} writes counted`);
    }
  }
}
