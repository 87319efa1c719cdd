/** Where the bytes of a VDI image's disk lie: a map of 32-bit entries, one a block. */
import { maxJoinedEntries } from '../../limits.js';
import type { MappedLayout, Mapping, Place } from '../mapped/mapping.js';
import type { TableCache } from '../mapped/table-cache.js';
import { type VdiHeader, vdiBlockBytes } from './header.js';

/** What is known of an open VDI image. */
export interface VdiLayout extends MappedLayout, VdiHeader {}

/** Bytes of an entry: the number of the block in the file, or one of two marks. */
export const vdiEntryBytes = 4;
/** The entry of a block that was discarded; the next and last value is of one that was never allocated. */
export const vdiDiscarded = 0xfffffffe;

/** See the file's comment. */
export class VdiMapping implements Mapping {
  readonly #layout: VdiLayout;
  readonly #tables: TableCache;

  constructor(layout: VdiLayout, tables: TableCache) {
    this.#layout = layout;
    this.#tables = tables;
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const block = Math.floor(offset / vdiBlockBytes);
    const entries = this.#tables.view(this.#layout.mapOffset + block * vdiEntryBytes);
    return entries instanceof Promise
      ? entries.then((loaded) => this.#place(loaded, offset, length))
      : this.#place(entries, offset, length);
  }

  /** @param entries of the map, from the block of `offset` on */
  #place(entries: DataView, offset: number, length: number): Place {
    const within = offset % vdiBlockBytes;
    const asked = Math.ceil((within + length) / vdiBlockBytes);
    const most = Math.min(asked, maxJoinedEntries, entries.byteLength / vdiEntryBytes);
    const entry = (index: number): number => entries.getUint32(index * vdiEntryBytes, true);
    const first = entry(0);
    let count = 1;
    if (first >= vdiDiscarded) {
      while (count < most && entry(count) >= vdiDiscarded) count++;
      return { kind: 'zero', length: Math.min(length, count * vdiBlockBytes - within) };
    }
    while (count < most && first + count < vdiDiscarded && entry(count) === first + count) count++;
    return {
      kind: 'data',
      length: Math.min(length, count * vdiBlockBytes - within),
      file: 0,
      offset: this.#layout.dataOffset + first * vdiBlockBytes + within,
      ...(this.#layout.isStatic && { hasHoles: true }),
    };
  }
}
