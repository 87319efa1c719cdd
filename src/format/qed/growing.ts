/** Writing to a QED image: clusters and L2 tables are appended, and the tables say where. */
import { Mutex } from 'async-mutex';
import type { StorageFile } from '../../storage/storage.js';
import { unsupportedImage } from '../failures.js';
import type { BlockRun, ChangingHeader, GrowingMapping, TableChanges } from '../mapped/mapping.js';
import { TableCache } from '../mapped/table-cache.js';
import { changingQedHeader } from './changing-header.js';
import { qedEntryBytes } from './header.js';
import { type QedLayout, QedMapping, qedZeroEntry } from './mapping.js';

/**
 * The mapping of an image that is written to.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for an image that was not closed cleanly, which has to be checked first
 */
export async function growingQed(layout: QedLayout, file: StorageFile): Promise<GrowingMapping> {
  if (layout.needsCheck) {
    throw unsupportedImage(
      file.filename,
      'the image was not closed cleanly, and has to be checked',
    );
  }
  // A part of a cluster, which a power cut has left behind the last whole one, is no new cluster's.
  const clusters = Math.ceil((await file.size()) / layout.clusterSize);
  const clustersEnd = clusters * layout.clusterSize;
  return new GrowingQed({ ...layout, clustersEnd }, file, new TableCache(file));
}

class GrowingQed extends QedMapping implements GrowingMapping {
  readonly blockSize: number;
  readonly header: ChangingHeader;
  readonly #layout: { -readonly [Key in keyof QedLayout]: QedLayout[Key] };
  readonly #file: StorageFile;
  readonly #tables: TableCache;
  readonly #appending = new Mutex();
  /** A table that is missing is made once. */
  readonly #linking = new Mutex();

  /** @param layout changes as the file grows */
  constructor(layout: QedLayout, file: StorageFile, tables: TableCache) {
    super(layout, file.filename, tables);
    this.blockSize = layout.clusterSize;
    this.header = changingQedHeader(layout, file);
    this.#layout = layout;
    this.#file = file;
    this.#tables = tables;
  }

  async allocate(_block: number, count: number): Promise<BlockRun> {
    const hostOffset = await this.#append(count * this.blockSize);
    return { hostOffset, count };
  }

  /** Makes the file longer, once at a time: a shorter length must not come after a longer one. */
  #append(bytes: number): Promise<number> {
    return this.#appending.runExclusive(async () => {
      const hostOffset = this.#layout.clustersEnd;
      await this.#file.truncate(hostOffset + bytes);
      this.#layout.clustersEnd += bytes;
      return hostOffset;
    });
  }

  link(block: number, { hostOffset, count }: BlockRun): Promise<void> {
    return this.#linking.runExclusive(async () => {
      for (let index = 0; index < count; index++) {
        await this.#setEntry(block + index, hostOffset + index * this.blockSize);
      }
    });
  }

  linkZeroes(block: number, count: number): Promise<void> {
    return this.#linking.runExclusive(async () => {
      for (let index = 0; index < count; index++) await this.#setEntry(block + index, qedZeroEntry);
    });
  }

  async #setEntry(block: number, value: number): Promise<void> {
    const { l1TableOffset, tableBytes } = this.#layout;
    const entries = tableBytes / qedEntryBytes;
    const l1At = l1TableOffset + Math.floor(block / entries) * qedEntryBytes;
    let table = numberAt(await this.#tables.view(l1At));
    if (table === 0) {
      table = await this.#append(tableBytes);
      if (!this.#file.limits.zeroInit) await this.#file.write(new Uint8Array(tableBytes), table);
      await this.#edit(l1At, table);
    }
    await this.#edit(table + (block % entries) * qedEntryBytes, value);
  }

  #edit(at: number, value: number): Promise<void> {
    return this.#tables.edit(at, qedEntryBytes, (view) => {
      view.setBigUint64(0, BigInt(value), true);
    });
  }

  takeChanges(): TableChanges | undefined {
    return this.#tables.takeChanges();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function numberAt(view: DataView): number {
  return Number(view.getBigUint64(0, true));
}
