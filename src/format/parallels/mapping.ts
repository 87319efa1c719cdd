/** Where the bytes of a Parallels image's disk lie: a catalog of 32-bit offsets, one a cluster. */
import { maxJoinedEntries, maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import type { MappedLayout, Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { type ParallelsHeader, parallelsHeaderBytes } from './header.js';

/** What is known of an open Parallels image. */
export interface ParallelsLayout extends MappedLayout, ParallelsHeader {}

/** Bytes of an entry of the catalog: an offset in units, 0 for a cluster that is not there. */
export const parallelsEntryBytes = 4;

/** See the file's comment. */
export class ParallelsMapping implements Mapping {
  readonly #layout: ParallelsLayout;
  readonly #file: StorageFile;
  readonly #tables: TableCache;

  constructor(layout: ParallelsLayout, file: StorageFile) {
    this.#layout = layout;
    this.#file = file;
    this.#tables = new TableCache(file);
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const cluster = Math.floor(offset / this.#layout.clusterBytes);
    if (cluster >= this.#layout.catalogEntries) return { kind: 'unallocated', length };
    const entries = this.#tables.view(parallelsHeaderBytes + cluster * parallelsEntryBytes);
    return entries instanceof Promise
      ? entries.then((loaded) => this.#place(loaded, cluster, offset, length))
      : this.#place(entries, cluster, offset, length);
  }

  /** @param entries of the catalog, from `cluster` on, in which `offset` lies */
  #place(entries: DataView, cluster: number, offset: number, length: number): Place {
    const { clusterBytes, offsetUnit, catalogEntries } = this.#layout;
    const within = offset % clusterBytes;
    const most = Math.min(
      Math.ceil((within + length) / clusterBytes),
      maxJoinedEntries,
      entries.byteLength / parallelsEntryBytes,
      catalogEntries - cluster,
    );
    const first = entries.getUint32(0, true);
    const step = first === 0 ? 0 : clusterBytes / offsetUnit;
    let count = 1;
    while (
      count < most &&
      entries.getUint32(count * parallelsEntryBytes, true) === first + count * step
    ) {
      count++;
    }
    const found = Math.min(length, count * clusterBytes - within);
    if (first === 0) return { kind: 'unallocated', length: found };
    const hostOffset = first * offsetUnit + within;
    if (hostOffset + found > maxOffset) {
      const why = `cluster ${cluster} is outside image`;
      throw damagedImage(
        this.#file.filename,
        why,
        parallelsHeaderBytes + cluster * parallelsEntryBytes,
      );
    }
    return { kind: 'data', length: found, file: 0, offset: hostOffset };
  }
}
