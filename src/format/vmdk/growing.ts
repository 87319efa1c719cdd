/** Writing to a VMDK image: flat ones in place; sparse ones in one file by appending grains. */
import type { StorageFile } from '../../storage/storage.js';
import type { ImageFiles } from '../driver.js';
import { damagedImage, unsupportedImage } from '../failures.js';
import type { BlockRun, GrowingMapping, Place, TableChanges } from '../mapped/mapping.js';
import { PlacedMapping } from '../mapped/placed.js';
import { TableCache } from '../mapped/table-cache.js';
import { descriptorText, renewedCid } from './descriptor.js';
import { SparseTables } from './grain-tables.js';
import { type VmdkLayout, sectorBytes } from './layout.js';
import { VmdkMapping } from './mapping.js';
import { spareDirectoryOf } from './sparse-header.js';
import { growingStream } from './stream.js';

const entryBytes = 4;

type Sparse = Extract<VmdkLayout['extents'][number], { kind: 'sparse' }>;

/**
 * The mapping of an image that is written to.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for kinds of images that are only read
 */
export async function growingVmdk(layout: VmdkLayout, files: ImageFiles): Promise<GrowingMapping> {
  const { extents } = layout;
  const [file] = files;
  if (extents.every(({ kind }) => kind === 'flat')) {
    return new PlacedMapping(new VmdkMapping(layout, files), () => renewCid(layout, file));
  }
  const [extent, ...others] = extents;
  if (extent.kind !== 'sparse' || extent.file !== 0 || others.length > 0) {
    throw unsupportedImage(file.filename, `VMDK images of this kind can only be read`);
  }
  if (extent.compression === 'marked') return await growingStream(extent, file);
  if (extent.compression !== 'none') {
    throw unsupportedImage(file.filename, 'compressed VMDK images can only be read');
  }
  const header = new Uint8Array(sectorBytes);
  await file.read(header, 0);
  const spare = spareDirectoryOf(new DataView(header.buffer));
  const end = Math.ceil((await file.size()) / extent.grainBytes) * extent.grainBytes;
  return new GrowingSparse(layout, extent, file, { spare, end });
}

/** Gives the disk another identity, which is durable before anything else changes. */
async function renewCid({ descriptor }: VmdkLayout, file: StorageFile): Promise<void> {
  if (descriptor === undefined) return;
  const bytes = new Uint8Array(descriptor.length);
  await file.read(bytes, descriptor.offset);
  const renewed = renewedCid(descriptorText(bytes));
  if (renewed === undefined) return;
  await file.write(Buffer.from(renewed.digits, 'latin1'), descriptor.offset + renewed.at);
  await file.flush();
}

class GrowingSparse implements GrowingMapping {
  readonly blockSize: number;
  readonly #layout: VmdkLayout;
  readonly #extent: Sparse;
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  readonly #grains: SparseTables;
  /** Host offsets of the grain directory and its copy, if there is one. */
  readonly #directories: readonly number[];
  /** Host offset of the next grain. */
  #end: number;

  constructor(
    layout: VmdkLayout,
    extent: Sparse,
    file: StorageFile,
    { spare, end }: { readonly spare: number | undefined; readonly end: number },
  ) {
    this.blockSize = extent.grainBytes;
    this.#layout = layout;
    this.#extent = extent;
    this.#file = file;
    this.#tables = new TableCache(file);
    this.#grains = new SparseTables(extent, file.filename, this.#tables);
    this.#directories = [extent.directoryOffset, ...(spare === undefined ? [] : [spare])];
    this.#end = end;
  }

  renewIdentity(): Promise<void> {
    return renewCid(this.#layout, this.#file);
  }

  find(offset: number, length: number): Place | Promise<Place> {
    return this.#grains.find(offset, length);
  }

  async allocate(_block: number, count: number): Promise<BlockRun> {
    const hostOffset = this.#end;
    const end = hostOffset + count * this.blockSize;
    if (end / sectorBytes > 0xffffffff) {
      const why = 'the image cannot grow any more: its tables count sectors in 32 bits';
      throw unsupportedImage(this.#file.filename, why);
    }
    await this.#file.truncate(end);
    this.#end = end;
    return { hostOffset, count };
  }

  async link(block: number, { hostOffset, count }: BlockRun): Promise<void> {
    for (const directory of this.#directories) {
      for (let index = 0; index < count; index++) {
        const at = await this.#entryAt(directory, block + index);
        const sector = (hostOffset + index * this.blockSize) / sectorBytes;
        await this.#tables.edit(at, entryBytes, (view) => {
          view.setUint32(0, sector, true);
        });
      }
    }
  }

  /** Host offset of a grain's entry, by a directory. */
  async #entryAt(directory: number, grain: number): Promise<number> {
    const { tableEntries } = this.#extent;
    const at = directory + Math.floor(grain / tableEntries) * entryBytes;
    const view = await this.#tables.view(at);
    const table = view.getUint32(0, true) * sectorBytes;
    if (table === 0) throw damagedImage(this.#file.filename, 'a grain table is missing', at);
    if (table + tableEntries * entryBytes > this.#end) {
      const why = 'a grain table lies beyond the end of the file';
      throw damagedImage(this.#file.filename, why, at);
    }
    return table + (grain % tableEntries) * entryBytes;
  }

  takeChanges(): TableChanges | undefined {
    return this.#tables.takeChanges();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
