/**
 * Where the bytes of a VHD image's disk lie: of a fixed one from the begin of the file, of others by a
 * table of 32-bit entries, one a block.
 */
import { maxJoinedEntries } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { MappedLayout, Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { type VhdHeader, vhdSectorBytes } from './footer.js';
import { sectorRun } from './sector-bitmap.js';

/** What is known of an open VHD image. */
export interface VhdLayout extends MappedLayout {
  /** Undefined for a fixed disk. */
  readonly blocks: VhdHeader | undefined;
  /** Whether it stands on a parent: then each block's bitmap says which of its sectors are here. */
  readonly isDifferencing: boolean;
}

/** Bytes of an entry: the sector in the file where the block's bitmap begins, or `unallocated`. */
export const vhdEntryBytes = 4;

/** The value of an entry whose block is not there. */
export const vhdUnallocated = 0xffffffff;

/** The mapping of an open VHD image. */
export function vhdMapping(layout: VhdLayout, file: StorageFile): Mapping {
  if (layout.blocks !== undefined) {
    return new BlockMapping(layout, layout.blocks, new TableCache(file));
  }
  return { find: (offset, length) => ({ kind: 'data', length, file: 0, offset, hasHoles: true }) };
}

/** The mapping of an image with a table of blocks. */
export class BlockMapping implements Mapping {
  readonly #blocks: VhdHeader;
  readonly #isDifferencing: boolean;
  readonly #tables: TableCache;

  constructor({ isDifferencing }: VhdLayout, blocks: VhdHeader, tables: TableCache) {
    this.#blocks = blocks;
    this.#isDifferencing = isDifferencing;
    this.#tables = tables;
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const { tableOffset, blockSize } = this.#blocks;
    const entries = this.#entries(tableOffset + Math.floor(offset / blockSize) * vhdEntryBytes);
    return entries instanceof Promise
      ? entries.then((loaded) => this.#place(loaded, offset, length))
      : this.#place(entries, offset, length);
  }

  /** Entries from a host offset on. The table need not be aligned: the first may lie in two pieces. */
  #entries(at: number): DataView | Promise<DataView> {
    const whole = (view: DataView): DataView | Promise<DataView> =>
      view.byteLength < vhdEntryBytes ? this.#tables.read(at, vhdEntryBytes) : view;
    const view = this.#tables.view(at);
    return view instanceof Promise ? view.then(whole) : whole(view);
  }

  /** @param entries of the table, from the block of `offset` on */
  #place(entries: DataView, offset: number, length: number): Place | Promise<Place> {
    const { blockSize, bitmapBytes } = this.#blocks;
    const within = offset % blockSize;
    const first = entries.getUint32(0);
    if (first !== vhdUnallocated) {
      const start = first * vhdSectorBytes;
      const part = Math.min(length, blockSize - within);
      return this.#isDifferencing
        ? this.#findInBlock(start, within, part)
        : { kind: 'data', length: part, file: 0, offset: start + bitmapBytes + within };
    }
    const most = Math.min(
      Math.ceil((within + length) / blockSize),
      maxJoinedEntries,
      Math.floor(entries.byteLength / vhdEntryBytes),
    );
    let count = 1;
    while (count < most && entries.getUint32(count * vhdEntryBytes) === vhdUnallocated) count++;
    const found = Math.min(length, count * blockSize - within);
    return { kind: this.#isDifferencing ? 'unallocated' : 'zero', length: found };
  }

  /** @param start host offset of the block's bitmap, in bytes @param within the block, as `length` is */
  #findInBlock(start: number, within: number, length: number): Place | Promise<Place> {
    const bitmap = this.#tables.view(start + Math.floor(within / vhdSectorBytes / 8));
    return bitmap instanceof Promise
      ? bitmap.then((loaded) => this.#placeInBlock(loaded, start, within, length))
      : this.#placeInBlock(bitmap, start, within, length);
  }

  #placeInBlock(bitmap: DataView, start: number, within: number, length: number): Place {
    const sector = Math.floor(within / vhdSectorBytes);
    const skipped = within % vhdSectorBytes;
    const asked = Math.ceil((skipped + length) / vhdSectorBytes);
    const { isPresent, sectors } = sectorRun(bitmap, sector % 8, asked, 'highest first');
    const found = Math.min(length, sectors * vhdSectorBytes - skipped);
    if (!isPresent) return { kind: 'unallocated', length: found };
    const offset = start + this.#blocks.bitmapBytes + within;
    return { kind: 'data', length: found, file: 0, offset };
  }
}
