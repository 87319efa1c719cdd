/**
 * An index of where something may be free: a bit for each unit of a space, set once a search has
 * found the unit full, and a second level that says which words of bits are all set. What was never
 * looked at may be free. Whoever uses it holds one lock, so plain memory does.
 */

const bitsPerWord = 32;
const allSet = -1;

/** Makes the shared memory of an index of so many units. */
export function allocateFreeIndex(units: number): SharedArrayBuffer {
  const words = Math.ceil(units / bitsPerWord);
  return new SharedArrayBuffer((words + Math.ceil(words / bitsPerWord)) * 4);
}

/** One thread's view of an index. */
export class FreeIndex {
  readonly #units: Int32Array;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    const length = memory.byteLength / 4;
    // Of `n` words of bits, and one more word for every 32 of these.
    const words = length - Math.ceil(length / (bitsPerWord + 1));
    this.#units = new Int32Array(memory, 0, words);
    this.#words = new Int32Array(memory, words * 4);
  }

  /** The first unit that may be free, from the begin of the space on; beyond its end if there is none. */
  get first(): number {
    for (let group = 0; group < this.#words.length; group++) {
      if (this.#words[group] === allSet) continue;
      const word = group * bitsPerWord + lowestClear(this.#words[group]);
      if (word >= this.#units.length) break;
      return word * bitsPerWord + lowestClear(this.#units[word]);
    }
    return this.#units.length * bitsPerWord;
  }

  /** Notes that nothing is free in a unit. */
  setFull(unit: number): void {
    const word = Math.floor(unit / bitsPerWord);
    if (word >= this.#units.length) return;
    this.#units[word] |= 1 << (unit % bitsPerWord);
    if (this.#units[word] !== allSet) return;
    this.#words[Math.floor(word / bitsPerWord)] |= 1 << (word % bitsPerWord);
  }

  /** Notes that something may be free in the units from one to another, both included. */
  setFree(from: number, to: number): void {
    for (let unit = from; unit <= to; unit++) {
      const word = Math.floor(unit / bitsPerWord);
      if (word >= this.#units.length) return;
      this.#units[word] &= ~(1 << (unit % bitsPerWord));
      this.#words[Math.floor(word / bitsPerWord)] &= ~(1 << (word % bitsPerWord));
    }
  }
}

function lowestClear(bits: number): number {
  const clear = ~bits;
  return 31 - Math.clz32(clear & -clear);
}
