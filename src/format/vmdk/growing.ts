/** Writing to a VMDK image: flat extents in place; sparse ones by appending grains to the file of each. */
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
  if (others.length === 0 && extent.kind === 'sparse' && extent.compression === 'marked') {
    return await growingStream(extent, file);
  }
  const growing: GrowingExtent[] = [];
  for (const each of extents) {
    // Blocks of an extent are blocks of the disk.
    const isLike =
      each.kind === 'sparse' &&
      each.start % each.grainBytes === 0 &&
      each.grainBytes === (growing[0]?.extent ?? each).grainBytes;
    if (!isLike) throw unsupportedImage(file.filename, 'VMDK images of this kind can only be read');
    if (each.compression !== 'none') {
      throw unsupportedImage(file.filename, 'compressed VMDK images can only be read');
    }
    growing.push(await growingExtent(each, files[each.file]));
  }
  return new GrowingSparse(layout, growing, file);
}

async function growingExtent(extent: Sparse, file: StorageFile): Promise<GrowingExtent> {
  const header = new Uint8Array(sectorBytes);
  await file.read(header, 0);
  const spare = spareDirectoryOf(new DataView(header.buffer));
  const end = Math.ceil((await file.size()) / extent.grainBytes) * extent.grainBytes;
  return new GrowingExtent(extent, file, { spare, end });
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

/** Sparse extents, one behind the other. */
class GrowingSparse implements GrowingMapping {
  readonly blockSize: number;
  readonly #layout: VmdkLayout;
  readonly #extents: readonly GrowingExtent[];
  readonly #file: StorageFile;

  /** @param file that has the descriptor */
  constructor(layout: VmdkLayout, extents: readonly GrowingExtent[], file: StorageFile) {
    this.blockSize = extents[0].extent.grainBytes;
    this.#layout = layout;
    this.#extents = extents;
    this.#file = file;
  }

  renewIdentity(): Promise<void> {
    return renewCid(this.#layout, this.#file);
  }

  find(offset: number, length: number): Place | Promise<Place> {
    const growing = this.#extentAt(offset);
    const { start, length: bytes } = growing.extent;
    return growing.find(offset - start, Math.min(length, start + bytes - offset));
  }

  allocate(block: number, count: number): Promise<BlockRun> {
    const growing = this.#extentAt(block * this.blockSize);
    const { start, length } = growing.extent;
    const end = Math.ceil((start + length) / this.blockSize);
    return growing.allocate(Math.min(count, end - block));
  }

  async link(block: number, run: BlockRun): Promise<void> {
    const growing = this.#extentAt(block * this.blockSize);
    await growing.link(block - growing.extent.start / this.blockSize, run);
  }

  #extentAt(offset: number): GrowingExtent {
    return this.#extents.findLast(({ extent }) => extent.start <= offset)!;
  }

  takeChanges(): TableChanges | undefined {
    const changes = this.#extents
      .map((each) => each.takeChanges())
      .filter((each) => each !== undefined);
    if (changes.length === 0) return undefined;
    return {
      async write() {
        for (const each of changes) await each.write();
      },
      end(isDurable) {
        for (const each of changes) each.end(isDurable);
      },
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** One of them, with offsets and blocks of its own. */
class GrowingExtent {
  readonly extent: Sparse;
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  readonly #grains: SparseTables;
  /** Host offsets of the grain directory and its copy, if there is one. */
  readonly #directories: readonly number[];
  /** Host offset of the next grain. */
  #end: number;

  constructor(
    extent: Sparse,
    file: StorageFile,
    { spare, end }: { readonly spare: number | undefined; readonly end: number },
  ) {
    this.extent = extent;
    this.#file = file;
    this.#tables = new TableCache(file);
    this.#grains = new SparseTables(extent, file.filename, this.#tables);
    this.#directories = [extent.directoryOffset, ...(spare === undefined ? [] : [spare])];
    this.#end = end;
  }

  find(offset: number, length: number): Place | Promise<Place> {
    return this.#grains.find(offset, length);
  }

  async allocate(count: number): Promise<BlockRun> {
    const hostOffset = this.#end;
    const end = hostOffset + count * this.extent.grainBytes;
    if (end / sectorBytes > 0xffffffff) {
      const why = 'the image cannot grow any more: its tables count sectors in 32 bits';
      throw unsupportedImage(this.#file.filename, why);
    }
    await this.#file.truncate(end);
    this.#end = end;
    return { file: this.extent.file, hostOffset, count };
  }

  async link(block: number, { hostOffset, count }: BlockRun): Promise<void> {
    for (const directory of this.#directories) {
      for (let index = 0; index < count; index++) {
        const at = await this.#entryAt(directory, block + index);
        const sector = (hostOffset + index * this.extent.grainBytes) / sectorBytes;
        await this.#tables.edit(at, entryBytes, (view) => {
          view.setUint32(0, sector, true);
        });
      }
    }
  }

  /** Host offset of a grain's entry, by a directory. */
  async #entryAt(directory: number, grain: number): Promise<number> {
    const { tableEntries } = this.extent;
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
}
