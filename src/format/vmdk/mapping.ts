/** Where the bytes of a VMDK image lie: the extent, and its own way to say so. */
import type { ImageFiles } from '../driver.js';
import type { Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { SeSparseTables, SparseTables } from './grain-tables.js';
import type { TabledExtent, VmdkExtent, VmdkLayout } from './layout.js';

/** Extents whose tables are remembered, each with up to 8 MiB. */
const mostTables = 16;

/** The mapping of one image on one thread. */
export class VmdkMapping implements Mapping {
  readonly #extents: readonly VmdkExtent[];
  readonly #files: ImageFiles;
  /** By number of the extent, the one used longest ago first. */
  readonly #tables = new Map<number, SparseTables | SeSparseTables>();
  /** Number of the extent that was used last. */
  #last = 0;

  constructor({ extents }: VmdkLayout, files: ImageFiles) {
    this.#extents = extents;
    this.#files = files;
  }

  find(offset: number, length: number): Place | Promise<Place> {
    let extent = this.#extents[this.#last];
    if (offset < extent.start || offset >= extent.start + extent.length) {
      this.#last = this.#numberAt(offset);
      extent = this.#extents[this.#last];
    }
    const within = offset - extent.start;
    const most = Math.min(length, extent.length - within);
    switch (extent.kind) {
      case 'flat':
        return {
          kind: 'data',
          length: most,
          file: extent.file,
          offset: extent.offset + within,
          hasHoles: true,
        };
      case 'zero':
        return { kind: 'zero', length: most };
      case 'sparse':
      case 'seSparse':
        return this.tablesOf(this.#last, extent).find(within, most);
    }
  }

  #numberAt(offset: number): number {
    let first = 0;
    let last = this.#extents.length - 1;
    while (first < last) {
      const middle = Math.ceil((first + last) / 2);
      if (this.#extents[middle].start <= offset) first = middle;
      else last = middle - 1;
    }
    return first;
  }

  /** The tables of an extent, by its number. */
  tablesOf(number: number, extent: TabledExtent): SparseTables | SeSparseTables {
    let tables = this.#tables.get(number);
    if (tables === undefined) {
      const file = this.#files[extent.file];
      const cache = new TableCache(file);
      tables =
        extent.kind === 'sparse'
          ? new SparseTables(extent, file.filename, cache)
          : new SeSparseTables(extent, file.filename, cache);
    } else this.#tables.delete(number);
    this.#tables.set(number, tables);
    if (this.#tables.size > mostTables) {
      const [oldest] = this.#tables.keys();
      this.#tables.delete(oldest);
    }
    return tables;
  }
}
