/**
 * The bytes of a file as a power cut leaves them, changed and changed back in one buffer, with a hash
 * that follows each change: sector by sector, so that a state costs what it changes.
 */
import type { ChangeKind } from '../../src/storage/filters/crash-log.js';

const sectorSize = 512;
const wordsPerSector = sectorSize / 4;

/** A part of a change: the bytes from `start` to `end` within it. */
export interface Piece {
  readonly kind: ChangeKind;
  readonly offset: number;
  readonly bytes: Uint8Array | undefined;
  readonly start: number;
  readonly end: number;
  /** For `truncate`, whether the file became longer when it took effect. */
  readonly grows: boolean;
}

/** See the file's comment. */
export class FileState {
  /** What lies beyond `size` is zero. */
  readonly bytes: Uint8Array;
  size: number;
  readonly #words: Int32Array;
  readonly #first: Int32Array;
  readonly #second: Int32Array;
  /** Hashes of sectors as the bytes of a write leave them. */
  readonly #known = new WeakMap<Uint8Array, Map<number, readonly [number, number]>>();
  #firstSum = 0;
  #secondSum = 0;
  #undone: { sector: number; first: number; second: number; size: number }[] = [];
  #kept: Uint8Array = new Uint8Array(64 * sectorSize);
  #recording = false;

  constructor(content: Uint8Array, capacity: number) {
    const sectors = Math.ceil(Math.max(capacity, content.length) / sectorSize);
    this.bytes = new Uint8Array(sectors * sectorSize);
    this.bytes.set(content);
    this.size = content.length;
    this.#words = new Int32Array(this.bytes.buffer);
    this.#first = new Int32Array(sectors);
    this.#second = new Int32Array(sectors);
    for (let sector = 0; sector < sectors; sector++) this.#hash(sector);
  }

  /** Two 32-bit hashes of the content and the size. */
  get hashes(): readonly [number, number] {
    return [
      Math.imul(this.size + 1, 0x85ebca6b) ^ this.#firstSum,
      Math.imul(this.size + 1, 0xc2b2ae35) ^ this.#secondSum,
    ];
  }

  /** From now on changes can be undone. */
  begin(): void {
    this.#undone = [];
    this.#recording = true;
  }

  /** Undoes what was changed since `begin`. */
  rollBack(): void {
    for (let index = this.#undone.length - 1; index >= 0; index--) {
      const { sector, first, second, size } = this.#undone[index];
      this.size = size;
      if (sector < 0) continue;
      const from = index * sectorSize;
      this.bytes.set(this.#kept.subarray(from, from + sectorSize), sector * sectorSize);
      this.#set(sector, first, second);
    }
    this.#undone = [];
    this.#recording = false;
  }

  apply(piece: Piece): void {
    const { kind, offset, bytes, start, end } = piece;
    if (kind === 'truncate') {
      if (piece.grows) this.#extend(offset);
      else this.#cut(offset);
      return;
    }
    const from = offset + start;
    let to = offset + end;
    if (kind === 'discard') to = Math.min(to, this.size);
    else this.#extend(to);
    if (kind === 'allocate') return;
    for (let at = from; at < to;) {
      const next = Math.min(to, (Math.floor(at / sectorSize) + 1) * sectorSize);
      const sector = Math.floor(at / sectorSize);
      this.#note(sector);
      if (bytes === undefined) this.bytes.fill(0, at, next);
      else this.bytes.set(bytes.subarray(at - offset, next - offset), at);
      if (bytes === undefined || next - at < sectorSize) this.#hash(sector);
      else this.#hashOnce(sector, bytes);
      at = next;
    }
  }

  #extend(size: number): void {
    if (size <= this.size) return;
    this.#note(-1);
    this.size = size;
  }

  #cut(size: number): void {
    if (size >= this.size) return;
    for (let at = size; at < this.size;) {
      const next = Math.min(this.size, (Math.floor(at / sectorSize) + 1) * sectorSize);
      this.#note(Math.floor(at / sectorSize));
      this.bytes.fill(0, at, next);
      this.#hash(Math.floor(at / sectorSize));
      at = next;
    }
    this.#note(-1);
    this.size = size;
  }

  #note(sector: number): void {
    if (!this.#recording) return;
    const index = this.#undone.length;
    if ((index + 1) * sectorSize > this.#kept.length) {
      const larger = new Uint8Array(this.#kept.length * 2);
      larger.set(this.#kept);
      this.#kept = larger;
    }
    const first = sector < 0 ? 0 : this.#first[sector];
    const second = sector < 0 ? 0 : this.#second[sector];
    this.#undone.push({ sector, first, second, size: this.size });
    if (sector < 0) return;
    const from = sector * sectorSize;
    this.#kept.set(this.bytes.subarray(from, from + sectorSize), index * sectorSize);
  }

  /** As `#hash`, for a sector that a write of these bytes has just replaced. */
  #hashOnce(sector: number, bytes: Uint8Array): void {
    const hashes = this.#known.get(bytes) ?? new Map<number, readonly [number, number]>();
    this.#known.set(bytes, hashes);
    const known = hashes.get(sector);
    if (known === undefined) {
      this.#hash(sector);
      hashes.set(sector, [this.#first[sector], this.#second[sector]]);
      return;
    }
    this.#set(sector, known[0], known[1]);
  }

  #set(sector: number, first: number, second: number): void {
    this.#firstSum ^= this.#first[sector] ^ first;
    this.#secondSum ^= this.#second[sector] ^ second;
    this.#first[sector] = first;
    this.#second[sector] = second;
  }

  #hash(sector: number): void {
    const at = sector * wordsPerSector;
    let any = 0;
    let first = Math.imul(sector + 1, 0x9e3779b1);
    let second = Math.imul(sector + 1, 0x27d4eb2f);
    for (let index = at; index < at + wordsPerSector; index++) {
      const word = this.#words[index];
      any |= word;
      first = Math.imul(first ^ word, 0x01000193);
      first ^= first >>> 15;
      second = Math.imul(second + word, 0x2c1b3c6d);
      second ^= second >>> 13;
    }
    if (any === 0) first = second = 0;
    this.#set(sector, first, second);
  }
}
