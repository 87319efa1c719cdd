/**
 * A table of 64-bit host offsets held whole in shared memory, in on-disk byte order: the L1 table
 * and the refcount table. Entries are touched only under the table's spinning word, and changes are
 * tracked by sector, the unit that reaches the disk at once.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../../../engine/words/atomic-memory.js';
import type { Poison } from '../../../engine/words/poison.js';
import { SharedWords } from '../../../engine/words/shared-words.js';
import {
  lockExclusive,
  lockShared,
  unlockExclusive,
  unlockShared,
} from '../../../engine/words/spin-word.js';
import { type HostOffset, after, asHostOffset } from '../layout/geometry.js';

const sectorSize = 512;
const two32 = 0x100000000;
const offsetHighMask = 0x00ffffff;
const offsetLowMask = 0xfffffe00;
const copiedHigh = 0x80000000;

/** The shared memory of one table; structured-cloneable. */
export interface PointerTableMemory {
  readonly data: SharedArrayBuffer;
  /** Two versions a sector, changed and cleaned; then the lock, the entry count, the host offset. */
  readonly words: SharedArrayBuffer;
}

/** A copy of a dirty sector on its way to the disk. */
export interface DirtySector {
  readonly sector: number;
  readonly hostOffset: HostOffset;
  readonly bytes: Uint8Array;
  readonly version: number;
}

/** Offset part in bytes of the entry at a position in a table's bytes. */
export function pointerAt(view: DataView, at: number): HostOffset {
  const high = view.getUint32(at) & offsetHighMask;
  return asHostOffset(high * two32 + ((view.getUint32(at + 4) & offsetLowMask) >>> 0));
}

/** Makes the memory of a table that may grow to `capacity` entries; untouched pages cost nothing. */
export function allocatePointerTable(capacity: number): PointerTableMemory {
  const sectors = Math.ceil((capacity * 8) / sectorSize);
  return {
    data: new SharedArrayBuffer(Math.max(sectors, 1) * sectorSize),
    words: new SharedArrayBuffer((Math.max(sectors, 1) * 2 + 4) * 4),
  };
}

/** One thread's view of a pointer table. */
export class PointerTable {
  readonly capacity: number;
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #memory: AtomicMemory;
  readonly #lock: number;

  constructor(memory: PointerTableMemory, poison?: Poison) {
    this.bytes = new Uint8Array(memory.data);
    this.#view = new DataView(memory.data);
    this.#words = new Int32Array(memory.words);
    this.#memory = new SharedWords(this.#words, poison);
    this.capacity = memory.data.byteLength / 8;
    this.#lock = this.#words.length - 4;
  }

  /** Entries in use. */
  get length(): number {
    return this.#words[this.#lock + 1];
  }

  /** Host offset of the table in bytes. */
  get hostOffset(): HostOffset {
    const low = this.#words[this.#lock + 2];
    return asHostOffset((this.#words[this.#lock + 3] * 0x80000000 + low) * sectorSize);
  }

  /** Notes where the table lies, in bytes, and how many entries it has. */
  place(hostOffset: HostOffset, entries: number): void {
    const unit = hostOffset / sectorSize;
    lockExclusive(this.#memory, this.#lock);
    this.#words[this.#lock + 1] = entries;
    this.#words[this.#lock + 2] = unit % 0x80000000;
    this.#words[this.#lock + 3] = Math.floor(unit / 0x80000000);
    unlockExclusive(this.#memory, this.#lock);
  }

  /**
   * Puts other entries in place of all there are, as they stand in the file at another place or at this one.
   *
   * @param bytes of the entries, no more than there is room for
   */
  replace(hostOffset: HostOffset, bytes: Uint8Array): void {
    assert(bytes.length <= this.bytes.length, 'a table has more entries than there is room for');
    this.place(hostOffset, bytes.length / 8);
    lockExclusive(this.#memory, this.#lock);
    this.bytes.fill(0);
    this.bytes.set(bytes);
    unlockExclusive(this.#memory, this.#lock);
  }

  /** Offset part of an entry in bytes, 0 where it points at nothing. */
  offset(index: number): HostOffset {
    lockShared(this.#memory, this.#lock);
    const offset = pointerAt(this.#view, index * 8);
    unlockShared(this.#memory, this.#lock);
    return offset;
  }

  /** Whether an entry has the COPIED flag: its table has exactly one reference. */
  isCopied(index: number): boolean {
    return (this.#view.getUint32(index * 8) & copiedHigh) !== 0;
  }

  /** The offsets of all entries that point at something, while nobody changes them. */
  *offsets(): Generator<HostOffset> {
    for (let index = 0; index < this.length; index++) {
      const offset = pointerAt(this.#view, index * 8);
      if (offset !== 0) yield offset;
    }
  }

  /** The entries that point at something, with their places, while nobody changes them. */
  *entries(): Generator<{ readonly index: number; readonly hostOffset: HostOffset }> {
    for (let index = 0; index < this.length; index++) {
      const hostOffset = pointerAt(this.#view, index * 8);
      if (hostOffset !== 0) yield { index, hostOffset };
    }
  }

  /** Whether an entry points at a table of so many bytes that lies, in part, within a range. */
  pointsInto(from: HostOffset, to: HostOffset, tableBytes: number): boolean {
    const { length } = this;
    lockShared(this.#memory, this.#lock);
    let found = false;
    for (let at = 0; at < length * 8 && !found; at += 8) {
      const offset = pointerAt(this.#view, at);
      found = offset !== 0 && offset < to && offset + tableBytes > from;
    }
    unlockShared(this.#memory, this.#lock);
    return found;
  }

  /** Sets an entry to a host offset in bytes. */
  set(index: number, hostOffset: HostOffset, copied: boolean): void {
    assert(index < this.length, 'an entry beyond its table');
    assert(hostOffset % sectorSize === 0, 'a table would begin within a sector');
    lockExclusive(this.#memory, this.#lock);
    const flag = copied ? copiedHigh : 0;
    this.#view.setUint32(index * 8, flag + Math.floor(hostOffset / two32));
    this.#view.setUint32(index * 8 + 4, hostOffset % two32);
    const sector = Math.floor((index * 8) / sectorSize);
    this.#words[sector * 2] = this.#words[sector * 2] + 1;
    unlockExclusive(this.#memory, this.#lock);
  }

  /** Copies every sector changed since it was last written. */
  copyDirty(): DirtySector[] {
    const copies: DirtySector[] = [];
    lockShared(this.#memory, this.#lock);
    const sectors = Math.ceil((this.length * 8) / sectorSize);
    for (let sector = 0; sector < sectors; sector++) {
      const version = this.#words[sector * 2];
      if (version === this.#words[sector * 2 + 1]) continue;
      const start = sector * sectorSize;
      // An L1 table may end within its last sector; bytes beyond it are not ours to write.
      const end = Math.min(start + sectorSize, this.length * 8);
      const bytes = this.bytes.slice(start, end);
      copies.push({ sector, hostOffset: after(this.hostOffset, start), bytes, version });
    }
    unlockShared(this.#memory, this.#lock);
    return copies;
  }

  /** Notes that a copied sector is on disk; it stays dirty if it has changed since. */
  markClean(copy: DirtySector): void {
    this.#memory.store(copy.sector * 2 + 1, copy.version);
  }
}
