/**
 * Another size for the disk of an open image. A larger L1 table takes the place of the old one before the
 * header says how large the disk is; of a smaller disk the entries go before that, so that whatever is cut off
 * leaves the old disk or the new one.
 */
import { CowherdError, problemWith } from '../../../errors.js';
import { maxL1TableBytes } from '../../../limits.js';
import { announced } from '../../../storage/filters/announced.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { Preallocation } from '../../create-options.js';
import type { DiskResizing } from '../../driver.js';
import type { ClusterRun } from '../refcount/allocator.js';
import { readSnapshots } from '../contents/snapshots.js';
import { type HostOffset, asHostOffset } from '../layout/geometry.js';
import { Autoclear, CryptMethod } from '../layout/header.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import { reclaimAll } from '../requests/reclaim.js';
import type { Qcow2Bitmaps } from './bitmaps.js';
import { giveUpEmptyBlocks } from './empty-blocks.js';

/** See the file's comment. */
export class Qcow2Resizing implements DiskResizing {
  readonly #metadata: Qcow2Metadata;
  readonly #dataFile: StorageFile | undefined;
  readonly #bitmaps: Qcow2Bitmaps;
  readonly #prepare: () => Promise<void>;
  /** Clusters of tables that the header was to point at, and does not for all that is known. */
  readonly #abandoned: ClusterRun[] = [];

  /** @param prepare makes the header ready for changes */
  constructor(
    metadata: Qcow2Metadata,
    dataFile: StorageFile | undefined,
    bitmaps: Qcow2Bitmaps,
    prepare: () => Promise<void>,
  ) {
    this.#metadata = metadata;
    this.#dataFile = dataFile;
    this.#bitmaps = bitmaps;
    this.#prepare = prepare;
  }

  /** A data file that is read as a raw disk holds all of it. */
  get leastPreallocation(): Preallocation {
    const { autoclearFeatures } = this.#metadata.headerFile.header;
    return (autoclearFeatures & Autoclear.rawExternalData) === 0 ? 'off' : 'metadata';
  }

  async check(size: number, preallocation: Preallocation, hidesBelow: boolean): Promise<void> {
    const { file, geometry, headerFile } = this.#metadata;
    const { header } = headerFile;
    const refuse = (why: string): never => {
      throw problemWith('ERR_COWHERD_UNSUPPORTED', file.filename, why);
    };
    if (preallocation !== 'off') this.#checkPreallocation(preallocation);
    const { snapshots } = await readSnapshots(file, header);
    if (header.version === 2 && snapshots.length > 0) {
      refuse("Can't resize a v2 image which has snapshots");
    }
    if (geometry.l1Entries(size) * 8 > maxL1TableBytes) {
      const message = 'Failed to grow the L1 table: File too large';
      throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', file.filename, message);
    }
    // What shares a cluster with the old end can be written there.
    const isFilled = preallocation === 'falloc' || preallocation === 'full';
    if (
      header.version === 2 &&
      hidesBelow &&
      !isFilled &&
      size > geometry.clusterEnd(header.size)
    ) {
      refuse('Failed to zero out new clusters: Operation not supported');
    }
    const { capacity } = this.#metadata.l1;
    if (geometry.l1Entries(size) > capacity) {
      refuse(`Failed to grow the L1 table: an open image has room for ${capacity} entries`);
    }
    await this.#bitmaps.checkSize(size);
  }

  #checkPreallocation(mode: Preallocation): void {
    const { file, headerFile } = this.#metadata;
    const { header } = headerFile;
    const refuse = (why: string): never => {
      throw problemWith('ERR_COWHERD_UNSUPPORTED', file.filename, why);
    };
    if (header.cryptMethod !== CryptMethod.none && header.version < 3) {
      refuse('Encrypted images of version 2 cannot be preallocated');
    }
    if (mode !== 'metadata' && (this.#dataFile ?? file).limits.blockDevice) {
      refuse(
        `Failed to resize underlying file: Preallocation mode '${mode}' unsupported for this non-regular file`,
      );
    }
  }

  async grow(size: number): Promise<void> {
    await this.#prepare();
    const { geometry } = this.#metadata;
    // As a raw disk it has room for whole clusters, which get their places.
    const isRaw = this.leastPreallocation !== 'off';
    await this.#dataFile?.truncate(isRaw ? geometry.clusterEnd(size) : size);
    await this.lengthenL1Table(geometry.l1Entries(size));
  }

  /** Has the L1 table have so many entries at least, durably. */
  async lengthenL1Table(entries: number): Promise<void> {
    await this.#prepare();
    await this.giveBackAbandoned();
    if (entries > this.#metadata.l1.length) await this.#moveL1Table(entries);
  }

  async finish(size: number): Promise<void> {
    const { file, counters, flushOrder, headerFile, allocator, l1, geometry } = this.#metadata;
    const isSmaller = size < headerFile.header.size;
    await this.#prepare();
    await flushOrder.flushAll();
    const kept = geometry.l1Entries(size);
    if (isSmaller && kept < l1.length) await this.#cutL1Table(kept);
    await this.#bitmaps.resize(size);
    if (!isSmaller) return;
    if ((await reclaimAll({ metadata: this.#metadata, file, counters })) > 0) {
      await flushOrder.flush();
    }
    await flushOrder.flushAll();
    await giveUpEmptyBlocks(this.#metadata);
    await flushOrder.flushAll();
    await allocator.trim(true);
    await this.#dataFile?.truncate(size);
  }

  /** Gives clusters back that a change which failed had reserved, once the header does not point there. */
  async giveBackAbandoned(): Promise<void> {
    if (this.#abandoned.length === 0) return;
    const { allocator, headerFile } = this.#metadata;
    await headerFile.settle();
    for (let run; (run = this.#abandoned.pop()) !== undefined;) {
      await allocator.lowerAll(run.cluster, run.length);
    }
  }

  async #moveL1Table(entries: number): Promise<void> {
    const { allocator, file, flushOrder, geometry, headerFile, l1, overlap } = this.#metadata;
    const { clusterSize } = geometry;
    await flushOrder.flushAll();
    const old = { offset: l1.hostOffset, bytes: l1.length * 8 };
    await file.events?.hear('l1_grow_alloc_table');
    const run = await allocator.reserveWhole(geometry.clusters(entries * 8));
    const offset = geometry.startOf(run.cluster);
    const bytes = new Uint8Array(run.length * clusterSize);
    bytes.set(l1.bytes.subarray(0, old.bytes));
    try {
      await announced(file, { write: 'l1_grow_write_table' }).write(bytes, offset);
      await flushOrder.flushAll();
      await file.flush();
    } catch (error) {
      await allocator.lowerAll(run.cluster, run.length);
      throw error;
    }
    overlap.protect(offset, bytes.length, Structure.activeL1);
    try {
      await file.events?.hear('l1_grow_activate_table');
      await headerFile.changeDisk({ l1Offset: offset, l1Entries: entries });
    } catch (error) {
      this.#abandoned.push(run);
      throw error;
    }
    l1.place(offset, entries);
    if (old.bytes === 0) return;
    await allocator.lowerAll(geometry.clusterAt(old.offset), geometry.clusters(old.bytes));
  }

  /** Gives up the L2 tables of the entries from one on; their clusters have been given up. */
  async #cutL1Table(kept: number): Promise<void> {
    const { allocator, file, flushOrder, geometry, l1 } = this.#metadata;
    const tables: HostOffset[] = [];
    for (let index = kept; index < l1.length; index++) {
      const offset = l1.offset(index);
      if (offset === 0) continue;
      tables.push(offset);
      l1.set(index, asHostOffset(0), false);
    }
    if (tables.length === 0) return;
    flushOrder.noteTable();
    await file.events?.hear('l1_shrink_write_table');
    await flushOrder.flushAll();
    await file.events?.hear('l1_shrink_free_l2_clusters');
    for (const offset of tables) {
      if (!geometry.canHoldCluster(offset)) {
        const message = `an L1 entry pointed at no valid L2 table (host offset ${offset})`;
        throw new CowherdError('ERR_COWHERD_CORRUPT', `'${file.filename}': ${message}`, {
          filename: file.filename,
        });
      }
      await allocator.lowerAll(geometry.clusterAt(offset), 1);
    }
  }
}
