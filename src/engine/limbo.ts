/**
 * Limbo: host clusters whose last reference was removed, until they may be handed out again. They
 * pass two gates here, in any order: every request that began before the removal has ended, and the
 * removal is durable. Punching, where wanted, comes after both, and is the caller's.
 *
 * All queues of an image share one limbo, so that any of them can get back what another gave up, and
 * a queue that closes waits for nobody. It is a list in shared memory, oldest first.
 */
import type { AtomicMemory } from './atomic-memory.js';
import { isBefore } from './epochs.js';
import type { Poison } from './poison.js';
import { SharedWords } from './shared-words.js';
import { lockExclusive, unlockExclusive } from './spin-word.js';

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
  /** Indices of the oldest entry, and of the one after the youngest. */
  head: 2,
  tail: 3,
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

  /** Adds clusters. Millions of entries beyond what memory there is are leaked. */
  add(entry: LimboEntry): void {
    this.#locked(() => {
      const words = this.#words;
      if (!this.#makeRoom()) return;
      const at = headerWords + words[Word.tail] * entryWords;
      words[at + Entry.low] = entry.cluster % lowBits;
      words[at + Entry.high] = Math.floor(entry.cluster / lowBits) | (entry.punch ? punchBit : 0);
      words[at + Entry.count] = entry.count;
      words[at + Entry.epoch] = entry.epoch;
      words[at + Entry.round] = entry.round;
      words[Word.tail] += 1;
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
      for (; words[Word.head] < words[Word.tail]; words[Word.head] += 1) {
        const entry = this.#entryAt(words[Word.head]);
        const passed = isBefore(entry.epoch, oldestEpoch) && !isBefore(completedRound, entry.round);
        if (!passed) break;
        released.push(entry);
        clusters += entry.count;
      }
      if (words[Word.head] === words[Word.tail]) words[Word.head] = words[Word.tail] = 0;
      this.#memory.add(Word.clusters, -clusters);
    });
    return released;
  }

  /** Whether the oldest entry waits for a flush round, not only for a request to end. */
  waitsForRound(completedRound: number): boolean {
    let waits = false;
    this.#locked(() => {
      const head = this.#words[Word.head];
      waits = head < this.#words[Word.tail] && isBefore(completedRound, this.#entryAt(head).round);
    });
    return waits;
  }

  /** Every entry, while no queue runs a request. */
  entries(): LimboEntry[] {
    const all: LimboEntry[] = [];
    this.#locked(() => {
      const words = this.#words;
      for (let index = words[Word.head]; index < words[Word.tail]; index++) {
        all.push(this.#entryAt(index));
      }
    });
    return all;
  }

  #entryAt(index: number): LimboEntry {
    const words = this.#words;
    const at = headerWords + index * entryWords;
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
    const words = this.#words;
    const capacity = Math.floor((words.length - headerWords) / entryWords);
    if (words[Word.tail] < capacity) return true;
    const head = words[Word.head];
    if (head > capacity / 2) {
      words.copyWithin(headerWords, headerWords + head * entryWords);
      words[Word.tail] -= head;
      words[Word.head] = 0;
      return true;
    }
    if (this.#buffer.byteLength === mostBytes) return false;
    this.#buffer.grow(Math.min(mostBytes, this.#buffer.byteLength * 2));
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
