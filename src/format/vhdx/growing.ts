/** Writing to a VHDX image: blocks are appended, and the block allocation table says where. */
import type { StorageFile } from '../../storage/storage.js';
import { unsupportedImage } from '../failures.js';
import type { BlockRun, GrowingMapping, TableChanges } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { newGuid } from './guid.js';
import { renewVhdxHeaders, vhdxAlignment } from './header.js';
import {
  BlockState,
  type GrowingVhdxLayout,
  VhdxMapping,
  payloadEntry,
  setVhdxEntry,
  vhdxEntryBytes,
} from './mapping.js';

/**
 * The mapping of an image that is written to. Its log stays empty: an entry of the table lies within a
 * sector, which is written as a whole, and after the data of its block.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for a differencing image, and for one that was not closed
 */
export function growingVhdx(layout: GrowingVhdxLayout, file: StorageFile): GrowingMapping {
  const { filename } = file;
  if (layout.isDifferencing) {
    throw unsupportedImage(filename, 'differencing VHDX images can only be read');
  }
  if (layout.replayed !== undefined) {
    const why = 'the VHDX image has a log that needs to be replayed, and can only be read';
    throw unsupportedImage(filename, why);
  }
  return new GrowingVhdx(layout, file, new TableCache(file));
}

class GrowingVhdx extends VhdxMapping implements GrowingMapping {
  readonly blockSize: number;
  readonly #layout: GrowingVhdxLayout;
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  /** Host offset in bytes of the file's next block. */
  #next: number;

  constructor(layout: GrowingVhdxLayout, file: StorageFile, tables: TableCache) {
    super(layout, file, tables);
    this.blockSize = layout.blockSize;
    this.#layout = layout;
    this.#file = file;
    this.#tables = tables;
    this.#next = Math.ceil(layout.end / vhdxAlignment) * vhdxAlignment;
  }

  renewIdentity(): Promise<void> {
    return renewVhdxHeaders(this.#file, this.#layout.header, newGuid());
  }

  async allocate(_block: number, count: number): Promise<BlockRun> {
    const hostOffset = this.#next;
    const end = hostOffset + count * this.blockSize;
    await this.#file.truncate(end);
    this.#next = end;
    return { hostOffset, count };
  }

  async link(block: number, { hostOffset, count }: BlockRun): Promise<void> {
    const { tableOffset, chunkBlocks } = this.#layout;
    for (let index = 0; index < count; index++) {
      const at = tableOffset + payloadEntry(block + index, chunkBlocks) * vhdxEntryBytes;
      await this.#tables.edit(at, vhdxEntryBytes, (view) => {
        setVhdxEntry(view, 0, hostOffset + index * this.blockSize, BlockState.fullyPresent);
      });
    }
  }

  takeChanges(): TableChanges | undefined {
    return this.#tables.takeChanges();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
