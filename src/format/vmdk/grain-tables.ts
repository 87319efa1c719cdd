/** Looking up grains in the tables of a sparse extent; they are read as they are needed. */
import { maxJoinedEntries, maxOffset } from '../../limits.js';
import { damagedImage } from '../failures.js';
import type { Place } from '../mapped/mapping.js';
import type { TableCache } from '../mapped/table-cache.js';
import { ReadBuffers, CompressedGrain } from './grain.js';
import {
  type Placement,
  type SeSparseExtent,
  type SparseExtent,
  type TabledExtent,
  sectorBytes,
} from './layout.js';

/** In place of a grain's offset: it reads as zeroes. */
export const zeroed = -1;

/** What the lookups of both kinds of tables have in common. */
export abstract class GrainTables<Extent extends TabledExtent = TabledExtent> {
  readonly extent: Extent;
  /** Bytes of an entry, in tables and the directory. */
  readonly entryBytes: number;
  protected readonly filename: string;
  readonly #tables: TableCache;
  /** Bytes of the disk that a table is about. */
  readonly #tableSpan: number;
  /** The entry of the directory that was used last, and where its table lies. */
  #last = -1;
  #lastTable = 0;

  /** @param filename of the extent's file, whose tables are read through `tables` */
  constructor(extent: Extent, filename: string, tables: TableCache, entryBytes: number) {
    this.extent = extent;
    this.filename = filename;
    this.#tables = tables;
    this.entryBytes = entryBytes;
    this.#tableSpan = extent.tableEntries * extent.grainBytes;
  }

  /** As `Mapping.find`. @param within where in the extent the stretch begins, in bytes */
  find(within: number, length: number): Place | Promise<Place> {
    const index = Math.floor(within / this.#tableSpan);
    if (index === this.#last) return this.#findInTable(this.#lastTable, within, length);
    const { directoryOffset, directoryEntries } = this.extent;
    if (index >= directoryEntries) {
      throw damagedImage(this.filename, 'the grain directory is too short', directoryOffset);
    }
    const view = this.#tables.view(directoryOffset + index * this.entryBytes);
    return view instanceof Promise
      ? view.then((loaded) => this.#findByDirectory(loaded, index, within, length))
      : this.#findByDirectory(view, index, within, length);
  }

  /** @param view begins with the directory's entry */
  #findByDirectory(
    view: DataView,
    index: number,
    within: number,
    length: number,
  ): Place | Promise<Place> {
    const table = this.tableAt(view, 0);
    if (table > 0) {
      this.#last = index;
      this.#lastTable = table;
      return this.#findInTable(table, within, length);
    }
    const { directoryEntries, directoryOffset } = this.extent;
    if (Number.isNaN(table)) {
      const why = `entry ${index} of the grain directory is invalid`;
      throw damagedImage(this.filename, why, directoryOffset + index * this.entryBytes);
    }
    const span = this.#tableSpan;
    const skipped = within - index * span;
    const most = Math.min(
      Math.ceil((skipped + length) / span),
      directoryEntries - index,
      Math.floor(view.byteLength / this.entryBytes),
      maxJoinedEntries,
    );
    let count = 1;
    while (count < most && this.tableAt(view, count) === 0) count += 1;
    return { kind: 'unallocated', length: Math.min(length, count * span - skipped) };
  }

  #findInTable(table: number, within: number, length: number): Place | Promise<Place> {
    const { grainBytes, tableEntries } = this.extent;
    const number = Math.floor(within / grainBytes);
    const first = number % tableEntries;
    const skipped = within - number * grainBytes;
    const wanted = Math.min(
      Math.ceil((skipped + length) / grainBytes),
      tableEntries - first,
      maxJoinedEntries,
    );
    const find = (view: DataView): Place => {
      const most = Math.min(wanted, Math.floor(view.byteLength / this.entryBytes));
      return this.findInEntries(view, most, number * grainBytes, skipped, length);
    };
    const view = this.#tables.view(table + first * this.entryBytes);
    return view instanceof Promise ? view.then(find) : find(view);
  }

  /** Host offset in bytes of a directory entry's table; 0 if there is none, NaN for an invalid entry. */
  abstract tableAt(view: DataView, index: number): number;

  /** Host offset in bytes of a grain, 0 if it has none, `zeroed`, or NaN for an invalid entry of a table. */
  abstract grainAt(view: DataView, index: number): number;

  /**
   * What the first entries of a view say.
   *
   * @param most entries to look at
   * @param start of the first one's grain, in bytes of the extent
   * @param skipped bytes of that grain which are not asked for
   */
  protected abstract findInEntries(
    view: DataView,
    most: number,
    start: number,
    skipped: number,
    length: number,
  ): Place;
}

/** The tables of a hosted sparse extent or a COWD extent: an entry is the number of a sector. */
export class SparseTables extends GrainTables<SparseExtent & Placement> {
  readonly #buffers = new ReadBuffers();

  constructor(extent: SparseExtent & Placement, filename: string, tables: TableCache) {
    super(extent, filename, tables, 4);
  }

  tableAt(view: DataView, index: number): number {
    return view.getUint32(index * 4, true) * sectorBytes;
  }

  grainAt(view: DataView, index: number): number {
    const entry = view.getUint32(index * 4, true);
    return entry === 1 && this.extent.hasZeroedGrains ? zeroed : entry * sectorBytes;
  }

  protected findInEntries(
    view: DataView,
    most: number,
    start: number,
    skipped: number,
    length: number,
  ): Place {
    const { grainBytes, hasZeroedGrains, compression, file } = this.extent;
    const entry = view.getUint32(0, true);
    const isZeroed = entry === 1 && hasZeroedGrains;
    const isStored = entry !== 0 && !isZeroed;
    if (isStored && compression !== 'none') {
      return this.#compressed(view, start, skipped, length);
    }
    const step = isStored ? grainBytes / sectorBytes : 0;
    let count = 1;
    while (count < most && view.getUint32(count * 4, true) === entry + count * step) count += 1;
    const found = Math.min(length, count * grainBytes - skipped);
    if (isStored) {
      return { kind: 'data', length: found, file, offset: entry * sectorBytes + skipped };
    }
    return { kind: isZeroed ? 'zero' : 'unallocated', length: found };
  }

  #compressed(view: DataView, start: number, skipped: number, length: number): Place {
    const { grainBytes, compression, file } = this.extent;
    const entry = view.getUint32(0, true);
    const size = Math.min(grainBytes, this.extent.length - start);
    // Grains lie one after the other as a rule, so that the next one's begin is this one's end.
    const next = view.byteLength >= 8 ? view.getUint32(4, true) : 0;
    const likelyBytes = next > entry ? (next - entry) * sectorBytes : 2 * grainBytes;
    const stored = {
      file,
      offset: entry * sectorBytes,
      likelyBytes,
      grainBytes,
      isMarked: compression === 'marked',
    };
    const chunk = new CompressedGrain(stored, this.#buffers, this.extent.start + start, size);
    return { kind: 'compressed', length: Math.min(length, size - skipped), chunk, within: skipped };
  }
}

/** The tables of an SESparse extent, whose entries are numbers of tables and grains. */
export class SeSparseTables extends GrainTables<SeSparseExtent & Placement> {
  constructor(extent: SeSparseExtent & Placement, filename: string, tables: TableCache) {
    super(extent, filename, tables, 8);
  }

  tableAt(view: DataView, index: number): number {
    const low = view.getUint32(index * 8, true);
    const high = view.getUint32(index * 8 + 4, true);
    if (low === 0 && high === 0) return 0;
    const table = this.extent.tablesOffset + low * this.extent.tableEntries * 8;
    // The upper half only says that there is a table. QEMU counts the sectors in 32 bits.
    return high === 0x10000000 && table / sectorBytes <= 0xffffffff ? table : NaN;
  }

  protected findInEntries(
    view: DataView,
    most: number,
    start: number,
    skipped: number,
    length: number,
  ): Place {
    const { grainBytes, file } = this.extent;
    const offset = this.grainAt(view, 0);
    if (Number.isNaN(offset)) {
      throw damagedImage(
        this.filename,
        `the table's entry of grain ${start / grainBytes} is invalid`,
      );
    }
    const step = offset > 0 ? grainBytes : 0;
    let count = 1;
    while (count < most && this.grainAt(view, count) === offset + count * step) count += 1;
    const found = Math.min(length, count * grainBytes - skipped);
    if (step > 0) return { kind: 'data', length: found, file, offset: offset + skipped };
    return { kind: offset === zeroed ? 'zero' : 'unallocated', length: found };
  }

  grainAt(view: DataView, index: number): number {
    const low = view.getUint32(index * 8, true);
    const high = view.getUint32(index * 8 + 4, true);
    switch (high >>> 28) {
      case 0:
        return low === 0 && high === 0 ? 0 : NaN;
      // The guest has given the grain back, or it was written with zeroes.
      case 1:
      case 2:
        return zeroed;
      case 3: {
        // The lowest 12 bits of the grain's number stand above the 48 others.
        const number = ((high & 0xffff) * 2 ** 32 + low) * 2 ** 12 + ((high >>> 16) & 0xfff);
        const { grainsOffset, grainBytes } = this.extent;
        const offset = grainsOffset + number * grainBytes;
        return offset <= maxOffset - grainBytes ? offset : NaN;
      }
      default:
        return NaN;
    }
  }
}
