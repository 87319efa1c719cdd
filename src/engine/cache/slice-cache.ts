/**
 * The shared cache of table slices: pieces of L2 tables or refcount blocks, in on-disk byte order.
 *
 * Slots lie in sets of eight; a slice may lie in any slot of the set its key selects, so a look-up
 * is at most eight comparisons and an eviction contends only with its own set. A slot that is dirty
 * or pinned is never evicted. Table bytes are touched only under the slot's spinning word.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../words/atomic-memory.js';
import { Counter, type QueueCounters } from '../queues/counters.js';
import type { Poison } from '../words/poison.js';
import { SharedWords } from '../words/shared-words.js';
import { SliceWorkQueues } from './slice-work-queues.js';
import { lockExclusive, lockShared, unlockExclusive, unlockShared } from '../words/spin-word.js';
import { type Watchdog, WordWatch } from '../words/watchdog.js';

const ways = 8;

/** Words of a slot's line. */
const Word = {
  lock: 0,
  /** Key + 1, or 0 for an empty slot. */
  key: 1,
  state: 2,
  pins: 3,
  /** Set by every look-up, cleared by the eviction hand. */
  used: 4,
  /** Bumped by every change; the slot is dirty while `cleaned` differs. */
  changed: 5,
  cleaned: 6,
  /** Event of the slot's work queue: its load, or the end of a claim. */
  event: 7,
} as const;
const wordsPerSlot = 8;

/** Words of a set, which follow those of all slots. */
const SetWord = {
  lock: 0,
  /** Event: some slot of the set may have become evictable. */
  event: 1,
} as const;
const wordsPerSet = 2;

/** What `#takeVictim` gives instead of a slot. */
const Victim = { none: -1, alreadyThere: -2 } as const;

/** What a slot's `state` says; while it is loaded, `loading` and the number of the thread that does. */
const State = { empty: 0, ready: 1, loading: 2 } as const;

/** The shared memory of one cache; structured-cloneable. */
export interface SliceCacheMemory {
  readonly sliceSize: number;
  readonly slots: number;
  readonly data: SharedArrayBuffer;
  readonly words: SharedArrayBuffer;
}

/** A cache's words, as they are locked and as they are read where a lock or a second look makes up for it. */
export interface SliceWords {
  readonly atomic: AtomicMemory;
  readonly plain: Int32Array;
}

/** A copy of a dirty slice, taken under its word, on its way to the disk. */
export interface DirtySlice {
  readonly slot: number;
  readonly key: number;
  readonly hostOffset: number;
  readonly bytes: Uint8Array;
  /** What `markClean` takes once the copy is on disk. */
  readonly version: number;
}

/** Reads a slice into the bytes of its slot. */
export type SliceLoader = (bytes: Uint8Array) => Promise<void>;

/** Where the slice of a key lies now: its host offset in bytes, or -1 while it has no place yet. */
export type SliceLocator = (key: number) => number;

/**
 * Makes the memory of a cache of about `budgetBytes` for slices of `sliceSize` bytes.
 *
 * @param mostSlices how many there are to be cached; more room would never be used
 */
export function allocateSliceCache(
  budgetBytes: number,
  sliceSize: number,
  mostSlices = Infinity,
): SliceCacheMemory {
  let sets = 1;
  while (sets * 2 * ways * sliceSize <= budgetBytes && sets * ways < mostSlices) sets *= 2;
  const slots = sets * ways;
  return {
    sliceSize,
    slots,
    data: new SharedArrayBuffer(slots * sliceSize),
    words: new SharedArrayBuffer((slots * wordsPerSlot + sets * wordsPerSet) * 4),
  };
}

/** One thread's view of a slice cache. */
export class SliceCache {
  /** All slots' bytes; slot `n` begins at `n * sliceSize`. */
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly sliceSize: number;
  readonly slots: number;
  /** Requests that wait for an event of a slot: its load, or the end of a claim. */
  readonly waiting: SliceWorkQueues;
  /** The number of this thread, for whoever waits for what it loads; set by the owner. */
  thread = 0;
  /** Where this thread's loads, evictions and waits are counted; set by the owner. */
  counters: QueueCounters | undefined;
  /** Makes dirty slices clean; set by the owner of the flush order. */
  writeBack: () => Promise<void> = () => Promise.resolve();
  /** Says which slice a key is of, and who works on it; set by the owner. */
  describe: (key: number, slot: number) => string = (key) => `slice ${key}`;

  readonly #words: Int32Array;
  readonly #memory: AtomicMemory;
  readonly #setMask: number;
  readonly #setWords: number;
  /** Requests that wait for any slot of a set to become evictable. */
  readonly #setWaiting: SliceWorkQueues;
  readonly #locate: SliceLocator;

  constructor(
    memory: SliceCacheMemory,
    locate: SliceLocator,
    poison?: Poison,
    words?: SliceWords,
    watchdog?: Watchdog,
  ) {
    this.#locate = locate;
    this.sliceSize = memory.sliceSize;
    this.slots = memory.slots;
    this.view = new DataView(memory.data);
    this.bytes = new Uint8Array(memory.data);
    this.#words = words?.plain ?? new Int32Array(memory.words);
    const watch = watchdog && new WordWatch(watchdog, (index) => this.#describeWait(index));
    this.#memory = words?.atomic ?? new SharedWords(this.#words, poison, watch);
    this.#setMask = memory.slots / ways - 1;
    this.#setWords = memory.slots * wordsPerSlot;
    this.waiting = new SliceWorkQueues(this.#memory, Word.event, wordsPerSlot);
    const setEvents = this.#setWords + SetWord.event;
    this.#setWaiting = new SliceWorkQueues(this.#memory, setEvents, wordsPerSet);
  }

  /** The ready slot of a key, or -1. What it says holds only under the slot's word: `holds` asks. */
  find(key: number): number {
    const words = this.#words;
    let slot = (key & this.#setMask) * ways;
    for (let way = 0; way < ways; way++, slot++) {
      const line = slot * wordsPerSlot;
      if (words[line + Word.key] === key + 1 && words[line + Word.state] === State.ready) {
        words[line + Word.used] = 1;
        return slot;
      }
    }
    return -1;
  }

  /** Whether a locked or pinned slot still holds a key's slice. */
  holds(slot: number, key: number): boolean {
    const line = slot * wordsPerSlot;
    return (
      this.#words[line + Word.key] === key + 1 && this.#words[line + Word.state] === State.ready
    );
  }

  lockShared(slot: number): void {
    lockShared(this.#memory, slot * wordsPerSlot + Word.lock);
  }

  unlockShared(slot: number): void {
    unlockShared(this.#memory, slot * wordsPerSlot + Word.lock);
  }

  lockExclusive(slot: number): void {
    lockExclusive(this.#memory, slot * wordsPerSlot + Word.lock);
  }

  unlockExclusive(slot: number): void {
    unlockExclusive(this.#memory, slot * wordsPerSlot + Word.lock);
  }

  /** Notes a change of the slot's bytes; the caller holds its word for writing. */
  markDirty(slot: number): void {
    this.#memory.add(slot * wordsPerSlot + Word.changed, 1);
  }

  /** Keeps a slot from eviction; the caller holds its word. */
  pin(slot: number): void {
    this.#memory.add(slot * wordsPerSlot + Word.pins, 1);
  }

  /** Undoes one `pin`. */
  unpin(slot: number): void {
    const pins = this.#memory.add(slot * wordsPerSlot + Word.pins, -1);
    assert(pins > 0, 'a slice is unpinned that nobody has pinned');
    this.#setWaiting.wake(Math.floor(slot / ways));
  }

  /**
   * The slot of a key, pinned; loads it first where it is not cached. Concurrent calls for one key
   * share one load.
   *
   * @throws what `load` throws
   */
  async acquire(key: number, load: SliceLoader): Promise<number> {
    for (;;) {
      const slot = this.#findAnyState(key);
      if (slot >= 0) {
        if (this.#tryPin(slot, key)) return slot;
        const announced = this.waiting.announce(slot);
        if (this.#isLoading(slot, key)) {
          this.counters?.add(Counter.loadWaits);
          await this.waiting.wait(slot, announced);
        }
        continue;
      }
      const victim = this.#takeVictim(key);
      if (victim === Victim.none) {
        await this.#makeRoom(key & this.#setMask);
      } else if (victim !== Victim.alreadyThere) {
        await this.#fill(victim, load);
        return victim;
      }
    }
  }

  /** Forgets a slice whose table has gone; it must be neither pinned nor worth writing back. */
  drop(key: number): void {
    const slot = this.find(key);
    if (slot < 0) return;
    this.lockExclusive(slot);
    if (this.holds(slot, key)) this.#empty(slot);
    this.unlockExclusive(slot);
  }

  /** Forgets every slice, while none is pinned or dirty: the tables were changed around the cache. */
  clear(): void {
    for (let slot = 0; slot < this.slots; slot++) {
      const line = slot * wordsPerSlot;
      if (this.#words[line + Word.key] === 0) continue;
      this.lockExclusive(slot);
      const isIdle = this.#memory.load(line + Word.pins) === 0 && !this.#isDirty(slot);
      assert(isIdle, 'a slice is forgotten that is in use');
      this.#empty(slot);
      this.unlockExclusive(slot);
    }
  }

  /** Copies every dirty slice that has a place, each under its word, ordered by host offset. */
  copyDirty(): DirtySlice[] {
    const copies: DirtySlice[] = [];
    for (let slot = 0; slot < this.slots; slot++) {
      if (!this.#isDirty(slot)) continue;
      this.lockShared(slot);
      const line = slot * wordsPerSlot;
      if (this.#isDirty(slot) && this.#words[line + Word.state] === State.ready) {
        const key = this.#words[line + Word.key] - 1;
        const version = this.#words[line + Word.changed];
        copies.push({ slot, key, hostOffset: -1, bytes: this.sliceBytes(slot).slice(), version });
      }
      this.unlockShared(slot);
    }
    return copies
      .map((copy) => ({ ...copy, hostOffset: this.#locate(copy.key) }))
      .filter((copy) => copy.hostOffset >= 0)
      .sort((a, b) => a.hostOffset - b.hostOffset);
  }

  /** Notes that a copy is on disk; the slot stays dirty if it has changed since. */
  markClean(copy: DirtySlice): void {
    this.lockShared(copy.slot);
    // A slice that was dropped meanwhile has left its slot to another.
    if (this.holds(copy.slot, copy.key)) {
      this.#memory.store(copy.slot * wordsPerSlot + Word.cleaned, copy.version);
    }
    this.unlockShared(copy.slot);
    this.#setWaiting.wake(Math.floor(copy.slot / ways));
  }

  #describeWait(index: number): string {
    if (index < this.#setWords) return this.#describeSlot(Math.floor(index / wordsPerSlot));
    const first = Math.floor((index - this.#setWords) / wordsPerSet) * ways;
    const pinned = Array.from({ length: ways }, (_, way) => first + way)
      .filter((slot) => this.#memory.load(slot * wordsPerSlot + Word.pins) !== 0)
      .map((slot) => this.#describeSlot(slot));
    return `room in a cache of slices, of which are in use: ${pinned.join('; ')}`;
  }

  #describeSlot(slot: number): string {
    const key = this.#memory.load(slot * wordsPerSlot + Word.key) - 1;
    if (key < 0) return 'a slice that has gone';
    const state = this.#memory.load(slot * wordsPerSlot + Word.state);
    const loader = state - State.loading;
    return this.describe(key, slot) + (loader < 0 ? '' : `, which thread ${loader} loads`);
  }

  /** The bytes of a slot, as a view. */
  sliceBytes(slot: number): Uint8Array {
    return this.bytes.subarray(slot * this.sliceSize, (slot + 1) * this.sliceSize);
  }

  #isDirty(slot: number): boolean {
    const line = slot * wordsPerSlot;
    return this.#memory.load(line + Word.changed) !== this.#memory.load(line + Word.cleaned);
  }

  #findAnyState(key: number): number {
    let slot = (key & this.#setMask) * ways;
    for (let way = 0; way < ways; way++, slot++) {
      if (this.#memory.load(slot * wordsPerSlot + Word.key) === key + 1) return slot;
    }
    return -1;
  }

  #isLoading(slot: number, key: number): boolean {
    const line = slot * wordsPerSlot;
    return (
      this.#memory.load(line + Word.key) === key + 1 &&
      this.#memory.load(line + Word.state) >= State.loading
    );
  }

  #tryPin(slot: number, key: number): boolean {
    this.lockShared(slot);
    const ready = this.holds(slot, key);
    if (ready) {
      this.pin(slot);
      this.#words[slot * wordsPerSlot + Word.used] = 1;
    }
    this.unlockShared(slot);
    return ready;
  }

  /**
   * Empties an evictable slot of the key's set for it.
   *
   * @returns the slot, which comes back loading and pinned, or one of `Victim`
   */
  #takeVictim(key: number): number {
    const set = key & this.#setMask;
    const setLock = this.#setWords + set * wordsPerSet + SetWord.lock;
    let victim: number = Victim.none;
    lockExclusive(this.#memory, setLock);
    if (this.#findAnyState(key) >= 0) {
      victim = Victim.alreadyThere;
    } else {
      // An empty slot before any that could be wanted again.
      const first = Math.max(0, this.#emptyWay(set));
      for (let step = 0; step < 2 * ways && victim < 0; step++) {
        const slot = set * ways + ((first + step) % ways);
        if (this.#tryEvict(slot)) victim = slot;
      }
    }
    if (victim >= 0) {
      const line = victim * wordsPerSlot;
      this.#memory.store(line + Word.pins, 1);
      this.#memory.store(line + Word.state, State.loading + this.thread);
      this.#memory.store(line + Word.key, key + 1);
    }
    unlockExclusive(this.#memory, setLock);
    return victim;
  }

  #emptyWay(set: number): number {
    for (let way = 0; way < ways; way++) {
      if (this.#words[(set * ways + way) * wordsPerSlot + Word.key] === 0) return way;
    }
    return -1;
  }

  #tryEvict(slot: number): boolean {
    const line = slot * wordsPerSlot;
    const memory = this.#memory;
    if (memory.load(line + Word.state) >= State.loading) return false;
    if (memory.load(line + Word.pins) !== 0 || this.#isDirty(slot)) return false;
    if (memory.load(line + Word.key) !== 0 && memory.load(line + Word.used) !== 0) {
      memory.store(line + Word.used, 0);
      return false;
    }
    this.lockExclusive(slot);
    const evictable = memory.load(line + Word.pins) === 0 && !this.#isDirty(slot);
    if (evictable) {
      if (memory.load(line + Word.key) !== 0) this.counters?.add(Counter.evictions);
      this.#empty(slot);
    }
    this.unlockExclusive(slot);
    return evictable;
  }

  #empty(slot: number): void {
    const line = slot * wordsPerSlot;
    this.#memory.store(line + Word.key, 0);
    this.#memory.store(line + Word.state, State.empty);
    this.#memory.store(line + Word.cleaned, this.#memory.load(line + Word.changed));
  }

  async #fill(slot: number, load: SliceLoader): Promise<void> {
    const line = slot * wordsPerSlot;
    this.counters?.add(Counter.cacheLoads);
    try {
      await load(this.sliceBytes(slot));
      this.lockExclusive(slot);
      this.#memory.store(line + Word.used, 1);
      this.#memory.store(line + Word.state, State.ready);
      this.unlockExclusive(slot);
    } catch (error) {
      this.lockExclusive(slot);
      this.#empty(slot);
      this.unlockExclusive(slot);
      this.unpin(slot);
      throw error;
    } finally {
      this.waiting.wake(slot);
    }
  }

  /** Waits until a slot of the set may have become evictable. */
  async #makeRoom(set: number): Promise<void> {
    const announced = this.#setWaiting.announce(set);
    this.counters?.add(Counter.roomWaits);
    let dirty = false;
    for (let way = 0; way < ways; way++) {
      const slot = set * ways + way;
      if (this.#memory.load(slot * wordsPerSlot + Word.pins) !== 0) continue;
      if (!this.#isDirty(slot)) return;
      dirty = true;
    }
    if (dirty) await this.writeBack();
    else await this.#setWaiting.wait(set, announced);
  }
}
