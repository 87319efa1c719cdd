/** Tables of persistent bitmaps (specification, "Bitmap table"): an entry for each cluster of bits. */
import { problemWith } from '../../../errors.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { PersistentBitmap } from './bitmaps.js';

const two32 = 0x100000000;
/** An entry: offset, reserved bits, and the flag for a run of ones without a cluster. */
const offsetHigh = 0x00ffffff;
const offsetLow = 0xfffffe00;
const reservedLow = 0x1fe;
const allOnes = 1;

/** Bytes of an entry. */
export const bitmapEntrySize = 8;

/** Whether every entry of a table is one. */
export function isBitmapTable(table: DataView, clusterSize: number): boolean {
  for (let at = 0; at < table.byteLength; at += bitmapEntrySize) {
    const high = table.getUint32(at);
    const low = table.getUint32(at + 4);
    if (high > offsetHigh || (low & reservedLow) !== 0) return false;
    const hostOffset = bitmapClusterOffset(table, at / bitmapEntrySize);
    if (hostOffset === 0) continue;
    if ((low & allOnes) !== 0 || hostOffset % clusterSize !== 0) return false;
  }
  return true;
}

/** Host offset in bytes of the cluster that holds an entry's bits; 0 if all of them are the same. */
export function bitmapClusterOffset(table: DataView, index: number): number {
  const at = index * bitmapEntrySize;
  const high = table.getUint32(at) & offsetHigh;
  return high * two32 + ((table.getUint32(at + 4) & offsetLow) >>> 0);
}

/** Has an entry of a table that was empty name the cluster that holds its bits. */
export function putBitmapCluster(table: DataView, index: number, hostOffset: number): void {
  table.setBigUint64(index * bitmapEntrySize, BigInt(hostOffset));
}

/** The bits of a bitmap as they are stored, a cluster at a time. */
export class StoredBits {
  readonly #file: StorageFile;
  readonly #clusterSize: number;
  readonly #table: DataView;

  private constructor(file: StorageFile, clusterSize: number, table: DataView) {
    this.#file = file;
    this.#clusterSize = clusterSize;
    this.#table = table;
  }

  /** Reads the table of a bitmap that has been checked. @throws ERR_COWHERD_INVALID_IMAGE if it is none */
  static async open(
    file: StorageFile,
    clusterSize: number,
    { tableOffset, tableEntries }: PersistentBitmap,
  ): Promise<StoredBits> {
    const bytes = new Uint8Array(tableEntries * bitmapEntrySize);
    await file.read(bytes, tableOffset);
    const table = new DataView(bytes.buffer);
    if (!isBitmapTable(table, clusterSize)) {
      throw problemWith(
        'ERR_COWHERD_INVALID_IMAGE',
        file.filename,
        'a table of a bitmap is damaged',
      );
    }
    return new StoredBits(file, clusterSize, table);
  }

  /** Clusters of bits. */
  get length(): number {
    return this.#table.byteLength / bitmapEntrySize;
  }

  /** Host offset in bytes of a cluster of bits; 0 if there is none, since all of them are the same. */
  hostOffset(index: number): number {
    return bitmapClusterOffset(this.#table, index);
  }

  /** Whether no bit of a cluster is set, for all that its entry says. */
  isNone(index: number): boolean {
    return this.hostOffset(index) === 0 && !this.#isOnes(index);
  }

  /** The bits of a cluster, lowest first; undefined if none of them is set. */
  async read(index: number): Promise<Uint8Array | undefined> {
    const isOnes = this.#isOnes(index);
    if (this.isNone(index)) return undefined;
    const bits = new Uint8Array(this.#clusterSize);
    if (isOnes) bits.fill(0xff);
    else await this.#file.read(bits, this.hostOffset(index));
    return bits;
  }

  #isOnes(index: number): boolean {
    return (this.#table.getUint32(index * bitmapEntrySize + 4) & allOnes) !== 0;
  }

  /** Puts an entry into another table as it is. */
  copyEntry(index: number, to: DataView): void {
    const at = index * bitmapEntrySize;
    to.setBigUint64(at, this.#table.getBigUint64(at));
  }
}

/** The bits of one cluster, as the part of the disk that they stand for. */
export class BitWindow {
  /** Guest offset in bytes of what the first bit stands for. */
  readonly start: number;
  readonly #clusterSize: number;
  readonly #granule: number;
  #bits: Uint8Array | undefined;
  #hasChanged = false;

  /** @param bits undefined if none of them is set */
  constructor(start: number, granule: number, clusterSize: number, bits: Uint8Array | undefined) {
    this.start = start;
    this.#granule = granule;
    this.#clusterSize = clusterSize;
    this.#bits = bits;
  }

  /** The bits, lowest first; undefined if none of them was ever set. */
  get bits(): Uint8Array | undefined {
    return this.#bits;
  }

  /** Whether they are not what they were. */
  get hasChanged(): boolean {
    return this.#hasChanged;
  }

  /** Sets the bits of a guest range that lies within. */
  set(start: number, end: number): void {
    this.#bits ??= new Uint8Array(this.#clusterSize);
    const first = Math.floor((start - this.start) / this.#granule);
    const last = Math.ceil((end - this.start) / this.#granule) - 1;
    const firstByte = first >>> 3;
    const lastByte = last >>> 3;
    const fromFirst = (0xff << (first & 7)) & 0xff;
    const upToLast = 0xff >>> (7 - (last & 7));
    if (firstByte === lastByte) {
      this.#or(this.#bits, firstByte, fromFirst & upToLast);
      return;
    }
    this.#or(this.#bits, firstByte, fromFirst);
    for (let byte = firstByte + 1; byte < lastByte; byte++) this.#or(this.#bits, byte, 0xff);
    this.#or(this.#bits, lastByte, upToLast);
  }

  /** Clears the bits of granules that begin at a guest offset or beyond. */
  clearFrom(offset: number): void {
    const bits = this.#bits;
    if (bits === undefined) return;
    const first = Math.max(0, Math.ceil((offset - this.start) / this.#granule));
    this.#hasChanged = true;
    const whole = Math.ceil(first / 8);
    if (first % 8 !== 0) bits[whole - 1] &= 0xff >>> (8 - (first % 8));
    bits.fill(0, whole);
  }

  #or(bits: Uint8Array, byte: number, mask: number): void {
    this.#hasChanged ||= (bits[byte] & mask) !== mask;
    bits[byte] |= mask;
  }
}
