/** Writing to a VDI image: blocks get places of the file, and the map says which. */
import type { StorageFile } from '../../storage/storage.js';
import type { BlockRun, GrowingMapping, TableChanges } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { vdiAllocatedAt, vdiBlockBytes, vdiHeaderBytes } from './header.js';
import { type VdiLayout, VdiMapping, vdiEntryBytes } from './mapping.js';
import { type PlaceRun, VdiPlaces } from './places.js';

/** The mapping of an image that is written to. */
export async function growingVdi(layout: VdiLayout, file: StorageFile): Promise<GrowingMapping> {
  const header = new Uint8Array(vdiHeaderBytes);
  await file.read(header, 0);
  const places = await VdiPlaces.read(file, layout);
  return new GrowingVdi(layout, file, places, { header, length: await file.size() });
}

class GrowingVdi extends VdiMapping implements GrowingMapping {
  readonly blockSize = vdiBlockBytes;
  readonly #layout: VdiLayout;
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  readonly #places: VdiPlaces;
  readonly #header: Uint8Array;
  /** Bytes of the file. */
  #length: number;

  constructor(
    layout: VdiLayout,
    file: StorageFile,
    places: VdiPlaces,
    { header, length }: { readonly header: Uint8Array; readonly length: number },
  ) {
    const tables = new TableCache(file);
    super(layout, tables);
    this.#layout = layout;
    this.#file = file;
    this.#tables = tables;
    this.#places = places;
    this.#header = header;
    this.#length = length;
  }

  async allocate(_block: number, most: number): Promise<BlockRun> {
    const places = this.#places.give(most);
    const { count, isReused } = places;
    const hostOffset = this.#layout.dataOffset + places.first * vdiBlockBytes;
    const end = hostOffset + count * vdiBlockBytes;
    try {
      if (end > this.#length) await this.#file.truncate(end);
    } catch (error) {
      this.#places.takeBack(places);
      throw error;
    }
    this.#length = Math.max(this.#length, end);
    return { hostOffset, count, isReused };
  }

  release(run: BlockRun): void {
    this.#places.takeBack(this.#placesOf(run));
  }

  async link(block: number, run: BlockRun): Promise<void> {
    const { first, count } = this.#placesOf(run);
    let linked = 0;
    try {
      for (; linked < count; linked++) {
        const at = this.#layout.mapOffset + (block + linked) * vdiEntryBytes;
        await this.#tables.edit(at, vdiEntryBytes, (view) => {
          view.setUint32(0, first + linked, true);
        });
      }
    } catch (error) {
      this.#places.takeBack({ first: first + linked, count: count - linked });
      throw error;
    }
  }

  #placesOf({ hostOffset, count }: BlockRun): Pick<PlaceRun, 'first' | 'count'> {
    return { first: (hostOffset - this.#layout.dataOffset) / vdiBlockBytes, count };
  }

  takeChanges(): TableChanges | undefined {
    return this.#tables.takeChanges();
  }

  /** How many places are in use. Others take the next one: the map must never be ahead of that. */
  async announce(): Promise<void> {
    new DataView(this.#header.buffer).setUint32(vdiAllocatedAt, this.#places.end, true);
    await this.#file.write(this.#header, 0);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
