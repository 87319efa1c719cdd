/**
 * Limbo: host clusters whose last reference was removed, until they may be handed out again. They
 * pass two gates here, in any order: every request that began before the removal has ended, and the
 * removal is durable. Punching, where wanted, comes after both, and is the caller's.
 *
 * All queues of an image share one limbo, so that any of them can get back what another gave up, and
 * a queue that closes waits for nobody. It is a ring in shared memory, oldest first.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../words/atomic-memory.js';
import { isBefore } from '../queues/epochs.js';
import type { Poison } from '../words/poison.js';
import { SharedWords } from '../words/shared-words.js';
import { lockExclusive, unlockExclusive } from '../words/spin-word.js';

/** Consecutive host clusters that lost one reference each. */
export interface LimboEntry {
  readonly cluster: number;
  readonly count: number;
  /** Epoch the removal belongs to. */
  readonly epoch: number;
  /** Flush round whose completion makes the removal durable. */
  readonly round: number;
  /** Whether the host should be told that the clusters are free. */
  readonly punch: boolean;
}

/** Words in front of the entries; all but `lock` and `clusters` are touched only under `lock`. */
const Word = {
  lock: 0,
  /** Clusters waiting. */
  clusters: 1,
  /** Where in the ring the oldest entry lies, and how many entries there are. */
  head: 2,
  entries: 3,
} as const;
const headerWords = 4;

/** Words of an entry. */
const Entry = { low: 0, high: 1, count: 2, epoch: 3, round: 4 } as const;
const entryWords = 5;
const lowBits = 0x40000000;
/** In `high`, beside the cluster's upper bits. */
const punchBit = 0x40000000;

const firstEntries = 256;
const mostBytes = 16 * 1024 * 1024;

/** Makes the shared memory of an image's limbo, which grows as it is needed. */
export function allocateLimbo(): SharedArrayBuffer {
  const bytes = (headerWords + firstEntries * entryWords) * 4;
  return new SharedArrayBuffer(bytes, { maxByteLength: mostBytes });
}

/** The clusters to which an image's queues have removed references. */
export class Limbo {
  readonly #buffer: SharedArrayBuffer;
  /** Follows the buffer's length. */
  readonly #words: Int32Array;
  readonly #memory: AtomicMemory;

  constructor(buffer: SharedArrayBuffer, poison?: Poison) {
    this.#buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#memory = new SharedWords(this.#words, poison);
  }

  /** Clusters waiting. */
  get clusters(): number {
    return this.#memory.load(Word.clusters);
  }

  /** Adds clusters. What is beyond the memory there is, some 800,000 entries, is leaked. */
  add(entry: LimboEntry): void {
    assert(entry.count > 0 && entry.cluster >= 0, 'no clusters are given up');
    this.#locked(() => {
      const words = this.#words;
      if (!this.#makeRoom()) return;
      const at = this.#place(words[Word.entries]);
      words[at + Entry.low] = entry.cluster % lowBits;
      words[at + Entry.high] = Math.floor(entry.cluster / lowBits) | (entry.punch ? punchBit : 0);
      words[at + Entry.count] = entry.count;
      words[at + Entry.epoch] = entry.epoch;
      words[at + Entry.round] = entry.round;
      words[Word.entries] += 1;
      this.#memory.add(Word.clusters, entry.count);
    });
  }

  /**
   * Takes out the oldest entries that have passed both gates, up to the first one that has not.
   *
   * @param oldestEpoch the oldest epoch that any request of any queue still runs in
   * @param completedRound the last flush round that is durable
   */
  takeReleasable(oldestEpoch: number, completedRound: number): LimboEntry[] {
    const released: LimboEntry[] = [];
    this.#locked(() => {
      const words = this.#words;
      let clusters = 0;
      for (; words[Word.entries] > 0; words[Word.entries] -= 1) {
        const entry = this.#entry(0);
        assert(entry.count > 0, 'an entry of limbo is torn');
        const passed = isBefore(entry.epoch, oldestEpoch) && !isBefore(completedRound, entry.round);
        if (!passed) break;
        released.push(entry);
        clusters += entry.count;
        words[Word.head] = (words[Word.head] + 1) % this.#capacity;
      }
      const waiting = this.#memory.add(Word.clusters, -clusters);
      assert(waiting >= clusters, 'more clusters leave limbo than are in it');
    });
    return released;
  }

  /** Whether the oldest entry waits for a flush round, not only for a request to end. */
  waitsForRound(completedRound: number): boolean {
    let waits = false;
    this.#locked(() => {
      waits = this.#words[Word.entries] > 0 && isBefore(completedRound, this.#entry(0).round);
    });
    return waits;
  }

  /** Whether the oldest entry has some of so many consecutive clusters. */
  oldestTouches(cluster: number, length: number): boolean {
    if (this.clusters === 0) return false;
    let touches = false;
    this.#locked(() => {
      if (this.#words[Word.entries] === 0) return;
      const oldest = this.#entry(0);
      touches = oldest.cluster < cluster + length && cluster < oldest.cluster + oldest.count;
    });
    return touches;
  }

  /** Every entry, while no queue runs a request. */
  entries(): LimboEntry[] {
    const all: LimboEntry[] = [];
    this.#locked(() => {
      for (let nth = 0; nth < this.#words[Word.entries]; nth++) all.push(this.#entry(nth));
    });
    return all;
  }

  /** Entries that the memory has room for now. */
  get #capacity(): number {
    return Math.floor((this.#words.length - headerWords) / entryWords);
  }

  /** First word of the entry that is, or would be, the `nth` oldest, from 0. */
  #place(nth: number): number {
    return headerWords + ((this.#words[Word.head] + nth) % this.#capacity) * entryWords;
  }

  #entry(nth: number): LimboEntry {
    const words = this.#words;
    const at = this.#place(nth);
    const high = words[at + Entry.high];
    return {
      cluster: (high & ~punchBit) * lowBits + words[at + Entry.low],
      count: words[at + Entry.count],
      epoch: words[at + Entry.epoch],
      round: words[at + Entry.round],
      punch: (high & punchBit) !== 0,
    };
  }

  /** Makes sure that one more entry fits. @returns whether it does */
  #makeRoom(): boolean {
    const capacity = this.#capacity;
    if (this.#words[Word.entries] < capacity) return true;
    if (this.#buffer.byteLength === mostBytes) return false;
    this.#buffer.grow(Math.min(mostBytes, this.#buffer.byteLength * 2));
    // The youngest entries, which lie before the oldest, go on from where the ring ended.
    const words = this.#words;
    const at = (place: number): number => headerWords + place * entryWords;
    const wrapped = words[Word.head];
    const moved = Math.min(wrapped, this.#capacity - capacity);
    words.copyWithin(at(capacity), at(0), at(moved));
    words.copyWithin(at(0), at(moved), at(wrapped));
    return true;
  }

  #locked(section: () => void): void {
    lockExclusive(this.#memory, Word.lock);
    try {
      section();
    } finally {
      unlockExclusive(this.#memory, Word.lock);
    }
  }
}
