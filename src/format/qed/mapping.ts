/** Where the bytes of a QED image's disk lie: an L1 table of L2 tables of clusters. */
import { maxJoinedEntries } from '../../limits.js';
import { damagedImage } from '../failures.js';
import type { MappedLayout, Mapping, Place } from '../mapped/mapping.js';
import type { TableCache } from '../mapped/table-cache.js';
import { type QedHeader, areClusters, qedEntryBytes } from './header.js';

/** What is known of an open QED image. */
export interface QedLayout extends MappedLayout, QedHeader {
  readonly clusterSize: number;
  readonly backing: QedHeader['backing'];
}

/** The value of an entry of nothing. */
const unallocated = 0;
/** The value of an entry of zeroes, in L2 tables alone. */
export const qedZeroEntry = 1;

/** See the file's comment. */
export class QedMapping implements Mapping {
  readonly #layout: QedLayout;
  readonly #filename: string;
  readonly #tables: TableCache;
  /** Guest bytes that one L2 table maps. */
  readonly #reach: number;

  constructor(layout: QedLayout, filename: string, tables: TableCache) {
    this.#layout = layout;
    this.#filename = filename;
    this.#tables = tables;
    this.#reach = (layout.tableBytes / qedEntryBytes) * layout.clusterSize;
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const at = this.#layout.l1TableOffset + Math.floor(offset / this.#reach) * qedEntryBytes;
    const entries = this.#tables.view(at);
    return entries instanceof Promise
      ? entries.then((loaded) => this.#findInL1(loaded, at, offset, length))
      : this.#findInL1(entries, at, offset, length);
  }

  /** @param entries of the L1 table, from host offset `at` on, where that of `offset` is */
  #findInL1(entries: DataView, at: number, offset: number, length: number): Place | Promise<Place> {
    const table = qedEntryOf(entries, 0);
    const within = offset % this.#reach;
    if (table === unallocated) {
      const most = mostJoined(entries, within + length, this.#reach);
      let count = 1;
      while (count < most && qedEntryOf(entries, count) === unallocated) count++;
      return { kind: 'unallocated', length: Math.min(length, count * this.#reach - within) };
    }
    const { clusterSize, tableBytes } = this.#layout;
    if (!areClusters(this.#layout, table, tableBytes)) this.#refuse('L2 table', table, at);
    const part = Math.min(length, this.#reach - within);
    const entryAt = table + Math.floor(within / clusterSize) * qedEntryBytes;
    const inner = this.#tables.view(entryAt);
    return inner instanceof Promise
      ? inner.then((loaded) => this.#findInL2(loaded, entryAt, offset, part))
      : this.#findInL2(inner, entryAt, offset, part);
  }

  /** The same for an L2 table, which maps all of the range. */
  #findInL2(entries: DataView, at: number, offset: number, length: number): Place {
    const { clusterSize, clustersEnd } = this.#layout;
    const within = offset % clusterSize;
    const most = mostJoined(entries, within + length, clusterSize);
    const first = qedEntryOf(entries, 0);
    const isOffset = first !== unallocated && first !== qedZeroEntry;
    if (isOffset && !areClusters(this.#layout, first, clusterSize)) {
      this.#refuse('Data cluster', first, at);
    }
    const step = isOffset ? clusterSize : 0;
    let count = 1;
    while (count < most) {
      const next = first + count * step;
      if (qedEntryOf(entries, count) !== next || next + step > clustersEnd) break;
      count++;
    }
    const found = Math.min(length, count * clusterSize - within);
    if (!isOffset) return { kind: first === qedZeroEntry ? 'zero' : 'unallocated', length: found };
    return { kind: 'data', length: found, file: 0, offset: first + within };
  }

  #refuse(what: string, offset: number, at: number): never {
    const why = `${what} offset 0x${offset.toString(16)} is invalid`;
    throw damagedImage(this.#filename, why, at);
  }
}

/** Entries, one after the other, that a lookup looks at. @param length guest bytes, from the first's begin */
function mostJoined(entries: DataView, length: number, unit: number): number {
  return Math.min(Math.ceil(length / unit), maxJoinedEntries, entries.byteLength / qedEntryBytes);
}

/** An entry; one that is no exact number is beyond every file all the same. */
export function qedEntryOf(entries: DataView, index: number): number {
  const at = index * qedEntryBytes;
  return entries.getUint32(at, true) + entries.getUint32(at + 4, true) * 2 ** 32;
}
