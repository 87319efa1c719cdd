/**
 * Which parts of a disk are written to: a bit for each granule, in memory that all queues share. A bit is set by
 * whoever begins to write there, inside the gate, so that it is there before anybody hears that the write has
 * completed. Bits are cleared, and the granule changes, only while no queue runs a request; nobody takes a lock.
 */

const Word = {
  /** 1 once the disk changes, so that what is to be recorded has to be from then on. */
  started: 0,
  /** Of a granule in bytes; 0 while nothing is recorded. */
  granularityBits: 1,
} as const;
/** Where the size of the disk stands, as a number of 64 bits. */
const sizeAt = 8;
const wordsBytes = 16;
const bitsPerWord = 32;

/** The shared memory of a map; structured-cloneable. */
export interface DirtyMapMemory {
  readonly words: SharedArrayBuffer;
  /** Grows with what is recorded. */
  readonly bits: SharedArrayBuffer;
}

/**
 * Makes the shared memory of a map that records nothing yet.
 *
 * @param mostBytes that its bits may come to take
 */
export function allocateDirtyMap(mostBytes: number): DirtyMapMemory {
  return {
    words: new SharedArrayBuffer(wordsBytes),
    bits: new SharedArrayBuffer(0, { maxByteLength: mostBytes }),
  };
}

/** One thread's view of the map. */
export class DirtyMap {
  readonly #words: Int32Array;
  readonly #size: Float64Array;
  readonly #memory: SharedArrayBuffer;
  /** As long as the memory is. */
  readonly #bits: Int32Array;

  constructor({ words, bits }: DirtyMapMemory) {
    this.#words = new Int32Array(words);
    this.#size = new Float64Array(words, sizeAt);
    this.#memory = bits;
    this.#bits = new Int32Array(bits);
  }

  /** Whether the disk may have changed since the image was opened. */
  get isStarted(): boolean {
    return Atomics.load(this.#words, Word.started) !== 0;
  }

  /** Bytes of a granule are 2 to the power of this; undefined while nothing is recorded. */
  get granularityBits(): number | undefined {
    return this.#words[Word.granularityBits] || undefined;
  }

  /**
   * Records from now on, with no bit set, while no queue runs a request that changes the disk.
   *
   * @param granularityBits undefined to record nothing
   * @param size of the disk in bytes
   */
  start(granularityBits: number | undefined, size: number): void {
    this.clear();
    this.#size[0] = size;
    this.makeRoom(granularityBits, size);
    Atomics.store(this.#words, Word.granularityBits, granularityBits ?? 0);
    Atomics.store(this.#words, Word.started, 1);
  }

  /** Sees to it that `start` has memory. @throws RangeError if there is none */
  makeRoom(granularityBits: number | undefined, size: number): void {
    if (granularityBits === undefined) return;
    const words = Math.ceil(size / 2 ** granularityBits / bitsPerWord);
    const bytes = words * Int32Array.BYTES_PER_ELEMENT;
    if (bytes > this.#memory.byteLength) this.#memory.grow(bytes);
  }

  /** Sets the bits of a range that is about to be written; what lies beyond the disk has none. */
  note(offset: number, length: number): void {
    const granularityBits = this.#words[Word.granularityBits];
    if (granularityBits === 0) return;
    const end = Math.min(offset + length, this.#size[0]);
    if (end <= offset) return;
    const granule = 2 ** granularityBits;
    const first = Math.floor(offset / granule);
    const last = Math.floor((end - 1) / granule);
    const firstWord = Math.floor(first / bitsPerWord);
    const lastWord = Math.floor(last / bitsPerWord);
    const fromFirst = -1 << (first % bitsPerWord);
    const upToLast = -1 >>> (bitsPerWord - 1 - (last % bitsPerWord));
    if (firstWord === lastWord) {
      this.#set(firstWord, fromFirst & upToLast);
      return;
    }
    this.#set(firstWord, fromFirst);
    // Others set ones too, so that none is lost.
    this.#bits.fill(-1, firstWord + 1, lastWord);
    this.#set(lastWord, upToLast);
  }

  /** Whether a bit of a range is set. */
  hasAny(offset: number, length: number): boolean {
    const [first, end] = this.#wordsOf(offset, length);
    for (let word = first; word < end; word++) if (this.#bits[word] !== 0) return true;
    return false;
  }

  /** The stretches of a range whose bits are set, in whole granules but for its ends. */
  *runs(offset: number, length: number): Generator<{ start: number; end: number }> {
    const { granularityBits } = this;
    if (granularityBits === undefined) return;
    const granule = 2 ** granularityBits;
    const end = offset + length;
    let run: { start: number; end: number } | undefined;
    const [firstWord, endWord] = this.#wordsOf(offset, length);
    for (let word = firstWord; word < endWord; word++) {
      const bits = this.#bits[word];
      if (bits === 0) continue;
      for (let bit = 0; bit < bitsPerWord; bit++) {
        if ((bits & (1 << bit)) === 0) continue;
        const at = (word * bitsPerWord + bit) * granule;
        const start = Math.max(at, offset);
        const upTo = Math.min(at + granule, end);
        if (upTo <= start) continue;
        if (run?.end === start) run.end = upTo;
        else {
          if (run !== undefined) yield run;
          run = { start, end: upTo };
        }
      }
    }
    if (run !== undefined) yield run;
  }

  /** Clears every bit, while no queue runs a request. */
  clear(): void {
    // Memory that nobody has written to takes no room.
    for (let word = 0; word < this.#bits.length; word++) {
      if (this.#bits[word] !== 0) this.#bits[word] = 0;
    }
  }

  #set(word: number, mask: number): void {
    // Most writes go where others have been, and need not take the line from other cores.
    if ((this.#bits[word] & mask) !== mask) Atomics.or(this.#bits, word, mask);
  }

  /** The words in which the bits of a range lie, the last not included. */
  #wordsOf(offset: number, length: number): readonly [first: number, end: number] {
    const { granularityBits } = this;
    if (granularityBits === undefined) return [0, 0];
    const reach = 2 ** granularityBits * bitsPerWord;
    const end = Math.min(Math.ceil((offset + length) / reach), this.#bits.length);
    return [Math.floor(offset / reach), end];
  }
}
