/** Where the bytes of a growing disk of Bochs lie. */
import { maxJoinedEntries, maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import type { Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { type BochsLayout, entryBytes, sectorBytes } from './header.js';

/** The entry of an extent of which nothing is stored. */
const absent = 0xffffffff;

/** The mapping of one image on one thread. */
export class BochsMapping implements Mapping {
  readonly #layout: BochsLayout;
  readonly #filename: string;
  readonly #tables: TableCache;

  constructor(layout: BochsLayout, file: StorageFile) {
    this.#layout = layout;
    this.#filename = file.filename;
    this.#tables = new TableCache(file);
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const { catalogOffset, extentBytes } = this.#layout;
    const at = catalogOffset + Math.floor(offset / extentBytes) * entryBytes;
    const view = this.#tables.view(at);
    if (view instanceof Promise) {
      return view.then((loaded) => this.#findByCatalog(loaded, at, offset, length));
    }
    return this.#findByCatalog(view, at, offset, length);
  }

  /** @param view begins at `at`, where the catalog's entry stands; the catalog may begin anywhere */
  #findByCatalog(
    view: DataView,
    at: number,
    offset: number,
    length: number,
  ): Place | Promise<Place> {
    if (view.byteLength < entryBytes) {
      return this.#tables
        .read(at, entryBytes)
        .then((whole) => this.#findByCatalog(whole, at, offset, length));
    }
    const { catalogOffset, catalogEntries, extentBytes, bitmapBytes } = this.#layout;
    const entry = view.getUint32(0, true);
    const index = Math.floor(offset / extentBytes);
    const within = offset - index * extentBytes;
    if (entry === absent) {
      const most = Math.min(
        Math.ceil((within + length) / extentBytes),
        Math.floor(view.byteLength / entryBytes),
        maxJoinedEntries,
      );
      let count = 1;
      while (count < most && view.getUint32(count * entryBytes, true) === absent) count += 1;
      return { kind: 'zero', length: Math.min(length, count * extentBytes - within) };
    }
    const extents = catalogOffset + catalogEntries * entryBytes;
    const bitmap = extents + entry * (bitmapBytes + extentBytes);
    if (bitmap > maxOffset - bitmapBytes - extentBytes) {
      throw damagedImage(this.#filename, `entry ${index} of the catalog is invalid`, at);
    }
    const inExtent = Math.min(length, extentBytes - within);
    return this.#findInExtent(bitmap, within, inExtent);
  }

  /** @param bitmap host offset in bytes of the extent's bitmap, which its data follow */
  #findInExtent(bitmap: number, within: number, length: number): Place | Promise<Place> {
    const sector = Math.floor(within / sectorBytes);
    const skipped = within - sector * sectorBytes;
    const find = (view: DataView): Place => {
      const first = sector % 8;
      const isStored = isSet(view, first);
      const most = Math.min(
        Math.ceil((skipped + length) / sectorBytes),
        view.byteLength * 8 - first,
      );
      const count = alikeFrom(view, first, most, isStored);
      const found = Math.min(length, count * sectorBytes - skipped);
      if (!isStored) return { kind: 'zero', length: found };
      const offset = bitmap + this.#layout.bitmapBytes + within;
      return { kind: 'data', length: found, file: 0, offset };
    };
    const view = this.#tables.view(bitmap + Math.floor(sector / 8));
    return view instanceof Promise ? view.then(find) : find(view);
  }
}

function isSet(view: DataView, bit: number): boolean {
  return ((view.getUint8(bit >> 3) >> (bit & 7)) & 1) !== 0;
}

/** How many bits from one on, at most `most`, have its value. */
function alikeFrom(view: DataView, first: number, most: number, value: boolean): number {
  const byte = value ? 0xff : 0;
  let count = 1;
  while (count < most) {
    const bit = first + count;
    if ((bit & 7) === 0 && view.getUint8(bit >> 3) === byte) count += 8;
    else if (isSet(view, bit) === value) count += 1;
    else break;
  }
  return Math.min(count, most);
}
