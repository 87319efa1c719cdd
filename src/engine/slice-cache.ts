/**
 * The shared cache of table slices: pieces of L2 tables or refcount blocks, in on-disk byte order.
 *
 * Slots lie in sets of eight; a slice may lie in any slot of the set its key selects, so a look-up
 * is at most eight comparisons and an eviction contends only with its own set. A slot that is dirty
 * or pinned is never evicted. Table bytes are touched only under the slot's spinning word.
 */
import { lockExclusive, lockShared, unlockExclusive, unlockShared } from './spin-word.js';
import { SliceWorkQueues } from './slice-work-queues.js';

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
} as const;
const wordsPerSlot = 8;

const State = { empty: 0, loading: 1, ready: 2 } as const;

/** The shared memory of one cache; structured-cloneable. */
export interface SliceCacheMemory {
  readonly sliceSize: number;
  readonly slots: number;
  readonly data: SharedArrayBuffer;
  readonly words: SharedArrayBuffer;
}

/** A copy of a dirty slice, taken under its word, on its way to the disk. */
export interface DirtySlice {
  readonly slot: number;
  readonly hostOffset: number;
  readonly bytes: Uint8Array;
  /** What `markClean` takes once the copy is on disk. */
  readonly version: number;
}

/** Reads a slice into the bytes of its slot. */
export type SliceLoader = (bytes: Uint8Array) => Promise<void>;

/** Where the slice of a key lies now: its host offset in bytes. */
export type SliceLocator = (key: number) => number;

/** Makes the memory of a cache of about `budgetBytes` for slices of `sliceSize` bytes. */
export function allocateSliceCache(budgetBytes: number, sliceSize: number): SliceCacheMemory {
  let sets = 1;
  while (sets * 2 * ways * sliceSize <= budgetBytes) sets *= 2;
  const slots = sets * ways;
  return {
    sliceSize,
    slots,
    data: new SharedArrayBuffer(slots * sliceSize),
    words: new SharedArrayBuffer((slots * wordsPerSlot + sets) * 4),
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
  readonly waiting = new SliceWorkQueues();
  /** Makes dirty slices clean; set by the owner of the flush order. */
  writeBack: () => Promise<void> = () => Promise.resolve();

  readonly #words: Int32Array;
  readonly #setMask: number;
  /** Requests that wait for any slot of a set to become evictable. */
  readonly #setWaiting = new SliceWorkQueues();

  readonly #locate: SliceLocator;

  constructor(memory: SliceCacheMemory, locate: SliceLocator) {
    this.#locate = locate;
    this.sliceSize = memory.sliceSize;
    this.slots = memory.slots;
    this.view = new DataView(memory.data);
    this.bytes = new Uint8Array(memory.data);
    this.#words = new Int32Array(memory.words);
    this.#setMask = memory.slots / ways - 1;
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
    lockShared(this.#words, slot * wordsPerSlot + Word.lock);
  }

  unlockShared(slot: number): void {
    unlockShared(this.#words, slot * wordsPerSlot + Word.lock);
  }

  lockExclusive(slot: number): void {
    lockExclusive(this.#words, slot * wordsPerSlot + Word.lock);
  }

  unlockExclusive(slot: number): void {
    unlockExclusive(this.#words, slot * wordsPerSlot + Word.lock);
  }

  /** Notes a change of the slot's bytes; the caller holds its word for writing. */
  markDirty(slot: number): void {
    Atomics.add(this.#words, slot * wordsPerSlot + Word.changed, 1);
  }

  /** Keeps a slot from eviction; the caller holds its word. */
  pin(slot: number): void {
    Atomics.add(this.#words, slot * wordsPerSlot + Word.pins, 1);
  }

  /** Undoes one `pin`. */
  unpin(slot: number): void {
    Atomics.sub(this.#words, slot * wordsPerSlot + Word.pins, 1);
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
        if (this.#isLoading(slot, key)) await this.waiting.wait(slot);
        continue;
      }
      const victim = this.#takeVictim(key);
      if (victim < 0) {
        await this.#makeRoom(key & this.#setMask);
        continue;
      }
      await this.#fill(victim, load);
      return victim;
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

  /** Whether any slot is dirty. */
  hasDirty(): boolean {
    for (let slot = 0; slot < this.slots; slot++) if (this.#isDirty(slot)) return true;
    return false;
  }

  /** Copies every dirty slice, each under its word, ordered by host offset. */
  copyDirty(): DirtySlice[] {
    const copies: DirtySlice[] = [];
    for (let slot = 0; slot < this.slots; slot++) {
      if (!this.#isDirty(slot)) continue;
      this.lockShared(slot);
      const line = slot * wordsPerSlot;
      if (this.#isDirty(slot) && this.#words[line + Word.state] === State.ready) {
        const key = this.#words[line + Word.key] - 1;
        copies.push({
          slot,
          hostOffset: this.#locate(key),
          bytes: this.sliceBytes(slot).slice(),
          version: this.#words[line + Word.changed],
        });
      }
      this.unlockShared(slot);
    }
    return copies.sort((a, b) => a.hostOffset - b.hostOffset);
  }

  /** Notes that a copy is on disk; the slot stays dirty if it has changed since. */
  markClean(copy: DirtySlice): void {
    Atomics.store(this.#words, copy.slot * wordsPerSlot + Word.cleaned, copy.version);
    this.#setWaiting.wake(Math.floor(copy.slot / ways));
  }

  /** The bytes of a slot, as a view. */
  sliceBytes(slot: number): Uint8Array {
    return this.bytes.subarray(slot * this.sliceSize, (slot + 1) * this.sliceSize);
  }

  #isDirty(slot: number): boolean {
    const line = slot * wordsPerSlot;
    return this.#words[line + Word.changed] !== this.#words[line + Word.cleaned];
  }

  #findAnyState(key: number): number {
    let slot = (key & this.#setMask) * ways;
    for (let way = 0; way < ways; way++, slot++) {
      if (this.#words[slot * wordsPerSlot + Word.key] === key + 1) return slot;
    }
    return -1;
  }

  #isLoading(slot: number, key: number): boolean {
    const line = slot * wordsPerSlot;
    return (
      this.#words[line + Word.key] === key + 1 && this.#words[line + Word.state] === State.loading
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

  /** Empties an evictable slot of the key's set for it; the slot comes back loading and pinned. */
  #takeVictim(key: number): number {
    const set = key & this.#setMask;
    const setLock = this.slots * wordsPerSlot + set;
    lockExclusive(this.#words, setLock);
    let victim = -1;
    if (this.#findAnyState(key) < 0) {
      for (let step = 0; step < 2 * ways && victim < 0; step++) {
        const slot = set * ways + (step % ways);
        if (this.#tryEvict(slot)) victim = slot;
      }
    }
    if (victim >= 0) {
      const line = victim * wordsPerSlot;
      this.#words[line + Word.pins] = 1;
      this.#words[line + Word.state] = State.loading;
      this.#words[line + Word.key] = key + 1;
    }
    unlockExclusive(this.#words, setLock);
    return victim;
  }

  #tryEvict(slot: number): boolean {
    const line = slot * wordsPerSlot;
    const words = this.#words;
    if (words[line + Word.state] === State.loading) return false;
    if (words[line + Word.pins] !== 0 || this.#isDirty(slot)) return false;
    if (words[line + Word.key] !== 0 && words[line + Word.used] !== 0) {
      words[line + Word.used] = 0;
      return false;
    }
    this.lockExclusive(slot);
    const evictable = words[line + Word.pins] === 0 && !this.#isDirty(slot);
    if (evictable) this.#empty(slot);
    this.unlockExclusive(slot);
    return evictable;
  }

  #empty(slot: number): void {
    const line = slot * wordsPerSlot;
    this.#words[line + Word.key] = 0;
    this.#words[line + Word.state] = State.empty;
    this.#words[line + Word.cleaned] = this.#words[line + Word.changed];
  }

  async #fill(slot: number, load: SliceLoader): Promise<void> {
    const line = slot * wordsPerSlot;
    try {
      await load(this.sliceBytes(slot));
      this.lockExclusive(slot);
      this.#words[line + Word.used] = 1;
      this.#words[line + Word.state] = State.ready;
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
    for (let way = 0; way < ways; way++) {
      const slot = set * ways + way;
      if (this.#isDirty(slot) && this.#words[slot * wordsPerSlot + Word.pins] === 0) {
        await this.writeBack();
        return;
      }
    }
    await this.#setWaiting.wait(set);
  }
}
