/** Where the bytes of a qcow image's disk lie: an L1 table of L2 tables of clusters, some compressed. */
import { maxJoinedEntries, maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage, unsupportedImage } from '../failures.js';
import { inflateInto } from '../mapped/inflate.js';
import type { CompressedChunk, MappedLayout, Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { type QcowHeader, qcowEntryBytes } from './header.js';

/** What is known of an open qcow image. */
export interface QcowLayout extends MappedLayout, QcowHeader {
  readonly clusterSize: number;
  readonly backing: QcowHeader['backing'];
}

const sectorSize = 512;
/** In the upper half of an entry of an L2 table. */
const compressedFlag = 0x80000000;

/** See the file's comment. */
export class QcowMapping implements Mapping {
  readonly #layout: QcowLayout;
  readonly #filename: string;
  readonly #tables: TableCache;
  /** Guest bytes that one L2 table maps. */
  readonly #reach: number;

  constructor(layout: QcowLayout, file: StorageFile) {
    this.#layout = layout;
    this.#filename = file.filename;
    this.#tables = new TableCache(file);
    this.#reach = (layout.tableBytes / qcowEntryBytes) * layout.clusterSize;
  }

  find(offset: number, length: number): Place | Promise<Place> {
    if (this.#layout.isEncrypted) {
      throw unsupportedImage(this.#filename, 'Encrypted images are not supported yet');
    }
    const at = this.#layout.l1TableOffset + Math.floor(offset / this.#reach) * qcowEntryBytes;
    const entries = this.#entries(at);
    return entries instanceof Promise
      ? entries.then((loaded) => this.#findInL1(loaded, at, offset, length))
      : this.#findInL1(entries, at, offset, length);
  }

  /** Entries from a host offset on. Tables need not be aligned, so that the first may lie in two pieces. */
  #entries(at: number): DataView | Promise<DataView> {
    const whole = (view: DataView): DataView | Promise<DataView> =>
      view.byteLength < qcowEntryBytes ? this.#tables.read(at, qcowEntryBytes) : view;
    const view = this.#tables.view(at);
    return view instanceof Promise ? view.then(whole) : whole(view);
  }

  /** @param entries of the L1 table, from host offset `at` on, where that of `offset` is */
  #findInL1(entries: DataView, at: number, offset: number, length: number): Place | Promise<Place> {
    const table = entryOf(entries, 0);
    const within = offset % this.#reach;
    if (table === 0) {
      const most = mostJoined(entries, within + length, this.#reach);
      let count = 1;
      while (count < most && entryOf(entries, count) === 0) count++;
      return { kind: 'unallocated', length: Math.min(length, count * this.#reach - within) };
    }
    const { clusterSize, tableBytes, fileLength } = this.#layout;
    if (table + tableBytes > fileLength) this.#refuse('L2 table', table, at);
    const part = Math.min(length, this.#reach - within);
    const entryAt = table + Math.floor(within / clusterSize) * qcowEntryBytes;
    const inner = this.#entries(entryAt);
    return inner instanceof Promise
      ? inner.then((loaded) => this.#findInL2(loaded, entryAt, offset, part))
      : this.#findInL2(inner, entryAt, offset, part);
  }

  /** The same for an L2 table, which maps all of the range. */
  #findInL2(entries: DataView, at: number, offset: number, length: number): Place {
    const { clusterSize } = this.#layout;
    const within = offset % clusterSize;
    if (entries.getUint32(0) >= compressedFlag) {
      const part = Math.min(length, clusterSize - within);
      return { kind: 'compressed', length: part, chunk: this.#chunk(entries, at, offset), within };
    }
    const most = mostJoined(entries, within + length, clusterSize);
    const first = entryOf(entries, 0);
    const step = first === 0 ? 0 : clusterSize;
    let count = 1;
    while (count < most && entryOf(entries, count) === first + count * step) count++;
    const found = Math.min(length, count * clusterSize - within);
    if (first === 0) return { kind: 'unallocated', length: found };
    if (first % sectorSize !== 0 || first + within + found > maxOffset) {
      this.#refuse('Data cluster', first, at);
    }
    return { kind: 'data', length: found, file: 0, offset: first + within };
  }

  /** The cluster that the first entry says is compressed: its size lies above its offset in the file. */
  #chunk(entries: DataView, at: number, offset: number): CompressedChunk {
    const { clusterBits, clusterSize } = this.#layout;
    const high = entries.getUint32(0);
    const offsetBits = 31 - clusterBits;
    const storedBytes = (high >>> offsetBits) & (clusterSize - 1);
    const stored = (high & (2 ** offsetBits - 1)) * 2 ** 32 + entries.getUint32(4);
    if (storedBytes === 0 || stored + storedBytes > maxOffset) {
      this.#refuse('Compressed cluster', stored, at);
    }
    return {
      key: Math.floor(offset / clusterSize),
      size: clusterSize,
      inflate: ([file], into) => inflateCluster(file, stored, storedBytes, into),
    };
  }

  #refuse(what: string, offset: number, at: number): never {
    const why = `${what} offset 0x${offset.toString(16)} is invalid`;
    throw damagedImage(this.#filename, why, at);
  }
}

async function inflateCluster(
  file: StorageFile,
  offset: number,
  length: number,
  into: Uint8Array,
): Promise<void> {
  const stored = new Uint8Array(length);
  await file.read(stored, offset);
  try {
    await inflateInto(stored, into, 'raw');
  } catch (error) {
    throw damagedImage(file.filename, 'Compressed cluster cannot be inflated', offset, error);
  }
}

/** Entries, one after the other, that a lookup looks at. @param length guest bytes, from the first's begin */
function mostJoined(entries: DataView, length: number, unit: number): number {
  const there = Math.floor(entries.byteLength / qcowEntryBytes);
  return Math.min(Math.ceil(length / unit), maxJoinedEntries, there);
}

/** An entry; one that is no exact number is beyond every file all the same. */
function entryOf(entries: DataView, index: number): number {
  const at = index * qcowEntryBytes;
  return entries.getUint32(at) * 2 ** 32 + entries.getUint32(at + 4);
}
