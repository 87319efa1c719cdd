/**
 * Claims: a mark per table entry while a request allocates its cluster. Marks are read and changed
 * only under the slot's spinning word; a slot with claims is pinned, so marks never move.
 */
import assert from 'node:assert/strict';

/** The claim marks of every slot of a slice cache. */
export class ClaimMarks {
  readonly #marks: Int32Array;
  readonly #wordsPerSlot: number;

  constructor(marks: Int32Array, slots: number) {
    this.#marks = marks;
    this.#wordsPerSlot = marks.length / slots;
  }

  /** Makes the shared memory for slots of `entries` entries each. */
  static allocate(slots: number, entries: number): SharedArrayBuffer {
    return new SharedArrayBuffer(slots * (Math.ceil(entries / 32) + 1) * 4);
  }

  /** Whether an entry is claimed. */
  has(slot: number, entry: number): boolean {
    return (this.#marks[this.#word(slot, entry)] & (1 << (entry & 31))) !== 0;
  }

  /**
   * Claims `count` entries, none of which is claimed.
   *
   * @param line the queue that claims them, for whoever waits for it in vain
   */
  add(slot: number, entry: number, count: number, line?: number): void {
    if (line !== undefined) this.#marks[this.#noteOf(slot)] = line + 1;
    for (let index = entry; index < entry + count; index++) {
      assert(!this.has(slot, index), 'an entry is claimed twice');
      const word = this.#word(slot, index);
      this.#marks[word] = this.#marks[word] | (1 << (index & 31));
    }
  }

  /** Ends the claims on `count` entries. */
  remove(slot: number, entry: number, count: number): void {
    for (let index = entry; index < entry + count; index++) {
      assert(this.has(slot, index), 'a claim ends that nobody holds');
      const word = this.#word(slot, index);
      this.#marks[word] = this.#marks[word] & ~(1 << (index & 31));
    }
  }

  /** The queue that has claimed entries of a slot last, if one has. */
  lastClaimer(slot: number): number | undefined {
    const note = this.#marks[this.#noteOf(slot)];
    return note === 0 ? undefined : note - 1;
  }

  /** The last word of a slot's. */
  #noteOf(slot: number): number {
    return (slot + 1) * this.#wordsPerSlot - 1;
  }

  #word(slot: number, entry: number): number {
    return slot * this.#wordsPerSlot + (entry >> 5);
  }
}
