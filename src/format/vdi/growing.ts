/** Writing to a VDI image: blocks are appended, and the map says where. */
import type { StorageFile } from '../../storage/storage.js';
import type { BlockRun, GrowingMapping } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { vdiAllocatedAt, vdiBlockBytes } from './header.js';
import { type VdiLayout, VdiMapping, vdiEntryBytes } from './mapping.js';

/** The mapping of an image that is written to. */
export async function growingVdi(layout: VdiLayout, file: StorageFile): Promise<GrowingMapping> {
  const used = Math.max(0, (await file.size()) - layout.dataOffset);
  return new GrowingVdi(layout, file, new TableCache(file), Math.ceil(used / vdiBlockBytes));
}

class GrowingVdi extends VdiMapping implements GrowingMapping {
  readonly blockSize = vdiBlockBytes;
  readonly #layout: VdiLayout;
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  /** Number of the file's next block. */
  #next: number;

  constructor(layout: VdiLayout, file: StorageFile, tables: TableCache, next: number) {
    super(layout, tables);
    this.#layout = layout;
    this.#file = file;
    this.#tables = tables;
    this.#next = next;
  }

  async allocate(_block: number, count: number): Promise<BlockRun> {
    const hostOffset = this.#layout.dataOffset + this.#next * vdiBlockBytes;
    await this.#file.truncate(hostOffset + count * vdiBlockBytes);
    this.#next += count;
    return { hostOffset, count };
  }

  async link(block: number, { hostOffset, count }: BlockRun): Promise<void> {
    const { mapOffset, dataOffset } = this.#layout;
    const first = (hostOffset - dataOffset) / vdiBlockBytes;
    for (let index = 0; index < count; index++) {
      const at = mapOffset + (block + index) * vdiEntryBytes;
      await this.#tables.edit(at, vdiEntryBytes, (view) => {
        view.setUint32(0, first + index, true);
      });
    }
    await this.#tables.edit(vdiAllocatedAt, 4, (view) => {
      view.setUint32(0, this.#next, true);
    });
  }

  flush(): Promise<void> {
    return this.#tables.flush();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
