/**
 * Writing to a VHD image. Blocks of a dynamic one come where the footer is, each behind a bitmap of its
 * sectors, and the footer moves behind them.
 */
import { Mutex } from 'async-mutex';
import type { StorageFile } from '../../storage/storage.js';
import { unsupportedImage } from '../failures.js';
import type { BlockRun, GrowingMapping, TableChanges } from '../mapped/mapping.js';
import { PlacedMapping } from '../mapped/placed.js';
import { TableCache } from '../mapped/table-cache.js';
import { type VhdHeader, vhdFooterBytes, vhdSectorBytes } from './footer.js';
import { BlockMapping, type VhdLayout, vhdEntryBytes, vhdMapping } from './mapping.js';

/** The mapping of an image that is written to. @throws ERR_COWHERD_UNSUPPORTED for a differencing one */
export async function growingVhd(layout: VhdLayout, file: StorageFile): Promise<GrowingMapping> {
  if (layout.isDifferencing) {
    throw unsupportedImage(file.filename, 'differencing VHD images can only be read');
  }
  if (layout.blocks === undefined) return new PlacedMapping(vhdMapping(layout, file));
  const footer = new Uint8Array(vhdFooterBytes);
  await file.read(footer, 0);
  const length = await file.size();
  const end = Math.ceil((length - vhdFooterBytes) / vhdSectorBytes) * vhdSectorBytes;
  return new GrowingVhd(layout, layout.blocks, file, new TableCache(file), { footer, end });
}

class GrowingVhd extends BlockMapping implements GrowingMapping {
  readonly blockSize: number;
  readonly #header: VhdHeader;
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  readonly #footer: Uint8Array;
  /** What is to be a block is not written over by the footer that was there. */
  readonly #moving = new Mutex();
  /** Where the footer is, or will be: host offset in bytes. */
  #end: number;

  constructor(
    layout: VhdLayout,
    header: VhdHeader,
    file: StorageFile,
    tables: TableCache,
    { footer, end }: { readonly footer: Uint8Array; readonly end: number },
  ) {
    super(layout, header, tables);
    this.blockSize = header.blockSize;
    this.#header = header;
    this.#file = file;
    this.#tables = tables;
    this.#footer = footer;
    this.#end = end;
  }

  allocate(): Promise<BlockRun> {
    return this.#moving.runExclusive(() => this.#append());
  }

  async #append(): Promise<BlockRun> {
    const { bitmapBytes, blockSize } = this.#header;
    const start = this.#end;
    const dataAt = start + bitmapBytes;
    this.#end = dataAt + blockSize;
    await this.#file.truncate(this.#end + vhdFooterBytes);
    // What was the footer is part of the block now, beyond what is written over below.
    const left = new Uint8Array(Math.max(bitmapBytes, vhdFooterBytes));
    left.fill(0xff, 0, bitmapBytes);
    await this.#file.write(left, start);
    return { hostOffset: dataAt, count: 1 };
  }

  async link(block: number, { hostOffset }: BlockRun): Promise<void> {
    const { tableOffset, bitmapBytes } = this.#header;
    const at = tableOffset + block * vhdEntryBytes;
    await this.#tables.edit(at, vhdEntryBytes, (view) => {
      view.setUint32(0, (hostOffset - bitmapBytes) / vhdSectorBytes);
    });
  }

  takeChanges(): TableChanges | undefined {
    const changes = this.#tables.takeChanges();
    return (
      changes && {
        ...changes,
        write: async () => {
          await changes.write();
          await this.#moving.runExclusive(() => this.#file.write(this.#footer, this.#end));
        },
      }
    );
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
