/**
 * Where the bytes of a VHDX image's disk lie ([MS-VHDX] 2.5): a table of 64-bit entries, one a payload
 * block, and after those of each chunk one for the bitmap of its sectors.
 */
import { maxJoinedEntries } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import type { MappedLayout, Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { sectorRun } from '../vpc/sector-bitmap.js';
import type { VhdxHeader } from './header.js';
import { logSectorBytes } from './log.js';
import { ReplayedFile } from './replayed-file.js';
import { type ReplayedRanges, bytesOfRange, firstRangeAfter } from './replayed-ranges.js';

/** How an image's disk is divided; in bytes, if nothing else is said. */
export interface VhdxGeometry {
  readonly tableOffset: number;
  /** Of a payload block, a power of two. */
  readonly blockSize: number;
  readonly sectorSize: number;
  /** Payload blocks of a chunk, whose sectors one bitmap describes. */
  readonly chunkBlocks: number;
}

/** What is known of an open VHDX image. */
export interface VhdxLayout extends MappedLayout, VhdxGeometry {
  /** Whether it stands on a parent. */
  readonly isDifferencing: boolean;
  /** What the log has that is not in its place yet; undefined for an image that was closed. */
  readonly replayed: ReplayedRanges | undefined;
}

/** The same, and what has to be known to write to it. */
export interface GrowingVhdxLayout extends VhdxLayout {
  readonly header: VhdxHeader;
  /** Host offset in bytes behind which nothing lies: the file's length, or where a last block would end. */
  readonly end: number;
  /** Bytes of the file once the log has been replayed, at least; undefined if there is nothing to replay. */
  readonly loggedLength: number | undefined;
}

/** Bytes of an entry. */
export const vhdxEntryBytes = 8;

/** States of payload blocks, and 6 of bitmaps too; of 6 and 7 data lie in the file. */
export const BlockState = { notPresent: 0, zero: 2, fullyPresent: 6, partiallyPresent: 7 } as const;
/** States of blocks that read as zeroes: undefined, zero, unmapped now and before version 1. */
const zeroStates = [1, 2, 3, 5];
const megabyte = 2 ** 20;
/** Sectors that the bitmap of a chunk describes ([MS-VHDX] 2.4). */
const chunkSectors = 2 ** 23;

type Kind = 'data' | 'partial' | 'zero' | 'unallocated' | undefined;

/** The state in the lower word of an entry. */
export function stateOf(low: number): number {
  return low & 7;
}

/** The host offset in an entry, in bytes; one that is no exact number is beyond every file. */
export function hostOffsetOf(low: number, high: number): number {
  return (high * 2 ** 12 + (low >>> 20)) * megabyte;
}

/** Writes an entry. @param hostOffset bytes, a multiple of 1 MiB */
export function setVhdxEntry(view: DataView, at: number, hostOffset: number, state: number): void {
  view.setUint32(at, (hostOffset % 2 ** 32) + state, true);
  view.setUint32(at + 4, Math.floor(hostOffset / 2 ** 32), true);
}

/** Payload blocks of a chunk, from the bytes of a sector and of a block. */
export function blocksOfChunk(sectorSize: number, blockSize: number): number {
  return (chunkSectors * sectorSize) / blockSize;
}

/** Number of the entry of a payload block: those of bitmaps lie in between. */
export function payloadEntry(block: number, chunkBlocks: number): number {
  return block + Math.floor(block / chunkBlocks);
}

/** See the file's comment. */
export class VhdxMapping implements Mapping {
  readonly #layout: VhdxLayout;
  readonly #filename: string;
  readonly #tables: TableCache;

  /** @param tables what else looks at the table or changes it; of its own by default */
  constructor(layout: VhdxLayout, file: StorageFile, tables?: TableCache) {
    const { replayed } = layout;
    this.#layout = layout;
    this.#filename = file.filename;
    const shown = replayed === undefined ? file : new ReplayedFile(file, replayed);
    this.#tables = tables ?? new TableCache(shown);
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const { tableOffset, blockSize, chunkBlocks } = this.#layout;
    const block = Math.floor(offset / blockSize);
    const entries = this.#tables.view(
      tableOffset + payloadEntry(block, chunkBlocks) * vhdxEntryBytes,
    );
    return entries instanceof Promise
      ? entries.then((loaded) => this.#place(loaded, block, offset, length))
      : this.#place(entries, block, offset, length);
  }

  /** @param entries of the table, from that of `block` on, in which `offset` lies */
  #place(entries: DataView, block: number, offset: number, length: number): Place | Promise<Place> {
    const { blockSize, chunkBlocks } = this.#layout;
    const within = offset % blockSize;
    const low = entries.getUint32(0, true);
    const first = hostOffsetOf(low, entries.getUint32(4, true));
    const kind = this.#kindOf(stateOf(low));
    if (kind === undefined) this.#refuse(block, `has state ${stateOf(low)}`);
    if (kind === 'partial') {
      return this.#findInBlock(block, first, within, Math.min(length, blockSize - within));
    }
    const most = Math.min(Math.ceil((within + length) / blockSize), maxJoinedEntries);
    const skipped = payloadEntry(block, chunkBlocks);
    let count = 1;
    for (; count < most; count++) {
      const at = (payloadEntry(block + count, chunkBlocks) - skipped) * vhdxEntryBytes;
      if (at + vhdxEntryBytes > entries.byteLength) break;
      const next = entries.getUint32(at, true);
      if (this.#kindOf(stateOf(next)) !== kind) break;
      const expected = first + count * blockSize;
      const isNext = hostOffsetOf(next, entries.getUint32(at + 4, true)) === expected;
      if (kind === 'data' && !isNext) break;
    }
    const found = Math.min(length, count * blockSize - within);
    return kind === 'data' ? this.#dataAt(first + within, found) : { kind, length: found };
  }

  #kindOf(state: number): Kind {
    if (state === BlockState.fullyPresent) return 'data';
    if (zeroStates.includes(state)) return 'zero';
    const { isDifferencing } = this.#layout;
    if (state === BlockState.notPresent) return isDifferencing ? 'unallocated' : 'zero';
    return state === BlockState.partiallyPresent && isDifferencing ? 'partial' : undefined;
  }

  /** Data of the file, which the log may have other bytes of, though it should not. */
  #dataAt(offset: number, length: number): Place {
    const { replayed } = this.#layout;
    if (replayed === undefined) return { kind: 'data', length, file: 0, offset };
    const range = firstRangeAfter(replayed, offset);
    const start = replayed.starts.at(range) ?? Infinity;
    if (start > offset) {
      return { kind: 'data', length: Math.min(length, start - offset), file: 0, offset };
    }
    const part = Math.min(length, replayed.ends[range] - offset);
    if (replayed.sectors[range] === -1) return { kind: 'zero', length: part };
    const inflate = (_files: readonly StorageFile[], into: Uint8Array): Promise<void> => {
      into.set(bytesOfRange(replayed, range, start)!);
      return Promise.resolve();
    };
    const chunk = { key: range, size: logSectorBytes, inflate };
    return { kind: 'compressed', length: part, chunk, within: offset - start };
  }

  /**
   * Looks into a block of which only some sectors are here.
   *
   * @param start host offset of the block, in bytes @param within the block, as `length` is
   */
  #findInBlock(
    block: number,
    start: number,
    within: number,
    length: number,
  ): Place | Promise<Place> {
    const { tableOffset, chunkBlocks } = this.#layout;
    const chunk = Math.floor(block / chunkBlocks);
    const entry = chunk * (chunkBlocks + 1) + chunkBlocks;
    const view = this.#tables.view(tableOffset + entry * vhdxEntryBytes);
    return view instanceof Promise
      ? view.then((loaded) => this.#findInBitmap(loaded, block, start, within, length))
      : this.#findInBitmap(view, block, start, within, length);
  }

  /** @param entry that of the bitmap of the block's chunk */
  #findInBitmap(
    entry: DataView,
    block: number,
    start: number,
    within: number,
    length: number,
  ): Place | Promise<Place> {
    const { blockSize, sectorSize, chunkBlocks } = this.#layout;
    const low = entry.getUint32(0, true);
    if (stateOf(low) !== BlockState.fullyPresent) this.#refuse(block, 'has no sector bitmap');
    const inChunk = (block % chunkBlocks) * blockSize + within;
    const at = hostOffsetOf(low, entry.getUint32(4, true)) + Math.floor(inChunk / sectorSize / 8);
    const bitmap = this.#tables.view(at);
    return bitmap instanceof Promise
      ? bitmap.then((loaded) => this.#placeInBlock(loaded, start, within, length))
      : this.#placeInBlock(bitmap, start, within, length);
  }

  #placeInBlock(bitmap: DataView, start: number, within: number, length: number): Place {
    const { sectorSize } = this.#layout;
    const sector = Math.floor(within / sectorSize);
    const skipped = within % sectorSize;
    const asked = Math.ceil((skipped + length) / sectorSize);
    const { isPresent, sectors } = sectorRun(bitmap, sector % 8, asked, 'lowest first');
    const found = Math.min(length, sectors * sectorSize - skipped);
    return isPresent ? this.#dataAt(start + within, found) : { kind: 'unallocated', length: found };
  }

  #refuse(block: number, why: string): never {
    const { tableOffset, chunkBlocks } = this.#layout;
    const at = tableOffset + payloadEntry(block, chunkBlocks) * vhdxEntryBytes;
    throw damagedImage(this.#filename, `VHDX payload block ${block} ${why}`, at);
  }
}
