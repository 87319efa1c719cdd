/** Where the blocks of a compressed loop device lie. */
import { maxChunkBytes, maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import { inflateInto } from '../mapped/inflate.js';
import type { CompressedChunk, Mapping, Place } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { type CloopLayout, entryBytes, headerBytes } from './header.js';

/** Largest compressed block in bytes; QEMU refuses larger ones. */
const mostStoredBytes = 2 * maxChunkBytes;

/** The mapping of one image on one thread. */
export class CloopMapping implements Mapping {
  readonly #blockBytes: number;
  readonly #filename: string;
  readonly #tables: TableCache;

  constructor({ blockBytes }: CloopLayout, file: StorageFile) {
    this.#blockBytes = blockBytes;
    this.#filename = file.filename;
    this.#tables = new TableCache(file);
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const block = Math.floor(offset / this.#blockBytes);
    const at = headerBytes + block * entryBytes;
    const view = this.#tables.view(at);
    if (view instanceof Promise || view.byteLength < 2 * entryBytes) {
      const entries = this.#tables.read(at, 2 * entryBytes);
      return entries.then((loaded) => this.#place(loaded, block, offset, length));
    }
    return this.#place(view, block, offset, length);
  }

  /** @param view begins with the block's entry and the one after it */
  #place(view: DataView, block: number, offset: number, length: number): Place {
    const start = uint64(view, 0);
    const end = uint64(view, entryBytes);
    const isAscending = end >= start && end <= maxOffset;
    if (!isAscending || end - start > mostStoredBytes) {
      const what = isAscending
        ? 'invalid compressed block size'
        : 'offsets not monotonically increasing';
      const why = `${what} at index ${block + 1}, image file is corrupt`;
      throw damagedImage(this.#filename, why, headerBytes + block * entryBytes);
    }
    const size = this.#blockBytes;
    const within = offset - block * size;
    const chunk = compressedBlock(block, size, start, end - start);
    return { kind: 'compressed', length: Math.min(length, size - within), chunk, within };
  }
}

function compressedBlock(
  block: number,
  size: number,
  offset: number,
  storedBytes: number,
): CompressedChunk {
  // A block that does not get smaller gets hardly larger: what follows is not its data.
  const readBytes = Math.min(storedBytes, 2 * size + 4096);
  return {
    key: block,
    size,
    async inflate([file], into) {
      const data = Buffer.allocUnsafeSlow(readBytes);
      await file.read(data, offset);
      try {
        await inflateInto(data, into, 'zlib');
      } catch (error) {
        throw damagedImage(file.filename, `compressed block ${block} is damaged`, offset, error);
      }
    },
  };
}

/** A number of 64 bits; beyond 2^53 it is about right, which is enough to refuse it. */
function uint64(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}
