/**
 * Reference counts of another width. New blocks, and a table of them, are written beside the old ones, which count
 * them too; then the header points there in one write, and the old ones are given up.
 */
import { type CowherdError, problemWith } from '../../../errors.js';
import { maxRefcountTableBytes } from '../../../limits.js';
import { isZero } from '../../../native/zero-scan.js';
import { type ClusterIndex, type HostOffset, after } from '../layout/geometry.js';
import { exactCounts, refcountWidth } from '../layout/refcount-width.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import type { ClusterRun } from '../refcount/allocator.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { walkTables } from '../tables/table-walk.js';
import type { StepOptions } from './change-progress.js';
import { type ExclusiveChanges, lowerCounts } from './exclusive.js';

/** Bytes of blocks that are under way at once. */
const writtenAtOnce = 4 * 1024 * 1024;
/** Times that the counts are walked over: to reserve, to see that it is enough, to write. */
const leastWalks = 3;

/** Where the new structures lie. */
interface NewPlace {
  readonly table: HostOffset;
  readonly tableClusters: number;
  readonly blocks: ReadonlyMap<number, HostOffset>;
}

/** Hears of an entry of the present table before its block is looked at, and of the end of the table. */
type OnEntry = (entry: number) => void;

/** How writing is cancelled and observed. */
interface WriteOptions {
  readonly signal: StepOptions['signal'];
  readonly onEntry: OnEntry;
}

/** Clusters for new structures. */
class Reserved {
  readonly blocks: ClusterIndex[] = [];
  table: ClusterRun | undefined;

  addBlocks({ cluster, length }: ClusterRun): void {
    for (let index = 0; index < length; index++) this.blocks.push(after(cluster, index));
  }

  takeTable(): ClusterRun | undefined {
    const { table } = this;
    this.table = undefined;
    return table;
  }

  /** One reference to each. */
  get counts(): PackedCounts {
    const counts = new PackedCounts(0);
    for (const cluster of this.blocks) counts.increment(cluster, 1);
    if (this.table !== undefined) counts.increment(this.table.cluster, this.table.length);
    return counts;
  }
}

/** Changes the width of one image's reference counts, which was made ready for changes. */
export class RefcountOrderChange {
  readonly #metadata: Qcow2Metadata;
  readonly #changes: ExclusiveChanges;
  readonly #order: number;
  /** Counts of a new block. */
  readonly #perBlock: number;

  /** @param order log2 of the new width in bits */
  constructor(metadata: Qcow2Metadata, changes: ExclusiveChanges, order: number) {
    this.#metadata = metadata;
    this.#changes = changes;
    this.#order = order;
    this.#perBlock = (metadata.geometry.clusterSize * 8) >> order;
  }

  /** Looks whether all counts have room in the new width. @throws CowherdError ERR_COWHERD_UNSUPPORTED if not */
  async check(): Promise<void> {
    await this.#metadata.flushOrder.flushAll();
    await this.#neededBlocks(() => undefined);
  }

  async run({ signal, onPart }: StepOptions): Promise<void> {
    const { allocator, flushOrder, headerFile } = this.#metadata;
    const reserved = new Reserved();
    let blocks: readonly number[] = [];
    let left = new PackedCounts(0);
    let walks = 0;
    try {
      const change = async (): Promise<boolean> => {
        await flushOrder.flushAll();
        const all = Math.max(walks + 2, leastWalks);
        blocks = await this.#neededBlocks(this.#onEntry(onPart, walks++, all));
        if (!this.#hasRoom(reserved, blocks)) return false;
        const place = this.#placeIn(reserved, blocks);
        await this.#write(place, { signal, onEntry: this.#onEntry(onPart, walks, walks + 1) });
        left = this.#oldStructures();
        for (const cluster of reserved.blocks.slice(blocks.length)) left.increment(cluster, 1);
        await this.#switchTo(place);
        return true;
      };
      // What is reserved is counted too, and can need a block more.
      while (!(await allocator.renew(change))) {
        signal?.throwIfAborted();
        await this.#reserve(reserved, blocks);
      }
    } catch (error) {
      // Nobody knows which the header points at.
      await this.#changes.later(
        () => headerFile.settle(),
        () => lowerCounts(this.#metadata, reserved.counts),
      );
      throw error;
    }
    await this.#changes.later(() => lowerCounts(this.#metadata, left));
  }

  /** What hears of each entry of the present table in one of several walks over it, however few point at a block. */
  #onEntry(onPart: StepOptions['onPart'], walk: number, walks: number): OnEntry {
    const { length } = this.#metadata.refcounts.table;
    let done = 0;
    return (entry) => {
      for (; done <= Math.min(entry, length); done++) {
        onPart(walk * length + done, walks * length);
      }
    };
  }

  /** Reserves what is missing for new structures. */
  async #reserve(reserved: Reserved, blocks: readonly number[]): Promise<void> {
    const { allocator } = this.#metadata;
    while (reserved.blocks.length < blocks.length) {
      reserved.addBlocks(await allocator.reserve(blocks.length - reserved.blocks.length));
    }
    const wanted = this.#tableClusters(blocks);
    if (reserved.table?.length === wanted) return;
    const old = reserved.takeTable();
    if (old !== undefined) await allocator.lowerAll(old.cluster, old.length);
    reserved.table = await allocator.reserveWhole(wanted);
  }

  #hasRoom({ table, blocks: places }: Reserved, blocks: readonly number[]): boolean {
    return table?.length === this.#tableClusters(blocks) && places.length >= blocks.length;
  }

  /** The clusters of the present blocks and their table. */
  #oldStructures(): PackedCounts {
    const { geometry, refcounts } = this.#metadata;
    const { table } = refcounts;
    const counts = new PackedCounts(0);
    for (const hostOffset of table.offsets()) counts.increment(geometry.clusterAt(hostOffset), 1);
    counts.increment(geometry.clusterAt(table.hostOffset), geometry.clusters(table.length * 8));
    return counts;
  }

  /** The numbers of the new blocks that have something to count, in ascending order. */
  async #neededBlocks(onEntry: OnEntry): Promise<readonly number[]> {
    const { file, geometry, refcounts } = this.#metadata;
    const { clusterSize, refcountOrder, refcountsPerBlock } = geometry;
    const read = exactCounts(refcountOrder);
    const limit = refcountOrder <= this.#order ? Infinity : 2 ** (2 ** this.#order);
    const needed: number[] = [];
    for await (const { index, view } of walkTables(file, refcounts.table.entries(), clusterSize)) {
      onEntry(index);
      const first = index * refcountsPerBlock;
      for (let at = 0, part = 0; at < refcountsPerBlock; at += part) {
        part = Math.min(refcountsPerBlock - at, this.#perBlock - ((first + at) % this.#perBlock));
        const start = view.byteOffset + (at * clusterSize) / refcountsPerBlock;
        const length = (part * clusterSize) / refcountsPerBlock;
        if (isZero(new Uint8Array(view.buffer, start, length))) continue;
        const block = Math.floor((first + at) / this.#perBlock);
        if (needed.at(-1) !== block) needed.push(block);
        if (limit === Infinity) continue;
        for (let entry = at; entry < at + part; entry++) {
          const count = read(view, entry);
          if (count >= limit) throw this.#noRoom(first + entry, count);
        }
      }
    }
    onEntry(Infinity);
    return needed;
  }

  #tableClusters(blocks: readonly number[]): number {
    const { geometry, refcounts, file } = this.#metadata;
    const clusters = Math.max(1, geometry.clusters(((blocks.at(-1) ?? 0) + 1) * 8));
    const most = Math.min(maxRefcountTableBytes, refcounts.table.capacity * 8);
    if (clusters * geometry.clusterSize <= most) return clusters;
    const why =
      'This operation would make the refcount table grow beyond the maximum size supported by QEMU, aborting';
    throw problemWith('ERR_COWHERD_UNSUPPORTED', file.filename, why);
  }

  #placeIn({ table, blocks: places }: Reserved, blocks: readonly number[]): NewPlace {
    const { geometry } = this.#metadata;
    return {
      table: geometry.startOf(table!.cluster),
      tableClusters: table!.length,
      blocks: new Map(blocks.map((block, at) => [block, geometry.startOf(places[at])])),
    };
  }

  async #write({ blocks }: NewPlace, { signal, onEntry }: WriteOptions): Promise<void> {
    const { file, geometry } = this.#metadata;
    const { clusterSize } = geometry;
    let writes: Promise<void>[] = [];
    const settle = async (): Promise<void> => {
      const ends = await Promise.allSettled(writes);
      writes = [];
      for (const end of ends) if (end.status === 'rejected') throw end.reason as Error;
    };
    try {
      for await (const { block, bytes } of this.#converted(blocks, onEntry)) {
        signal?.throwIfAborted();
        writes.push(file.write(bytes, blocks.get(block)!));
        if (writes.length * clusterSize >= writtenAtOnce) await settle();
      }
    } finally {
      await settle();
    }
  }

  /** The new blocks, one after the other. */
  async *#converted(
    blocks: NewPlace['blocks'],
    onEntry: OnEntry,
  ): AsyncGenerator<{ readonly block: number; readonly bytes: Uint8Array }> {
    const { file, geometry, refcounts } = this.#metadata;
    const { clusterSize, refcountOrder, refcountsPerBlock } = geometry;
    const from = refcountWidth(refcountOrder, file.filename);
    const to = refcountWidth(this.#order, file.filename);
    let block = -1;
    let bytes = new Uint8Array(0);
    for await (const { index, view } of walkTables(file, refcounts.table.entries(), clusterSize)) {
      onEntry(index);
      const first = index * refcountsPerBlock;
      for (let at = 0, part = 0; at < refcountsPerBlock; at += part) {
        const cluster = first + at;
        const start = cluster % this.#perBlock;
        part = Math.min(refcountsPerBlock - at, this.#perBlock - start);
        const next = (cluster - start) / this.#perBlock;
        if (!blocks.has(next)) continue;
        if (next !== block) {
          if (block >= 0) yield { block, bytes };
          block = next;
          bytes = new Uint8Array(clusterSize);
        }
        const target = new DataView(bytes.buffer);
        for (let entry = 0; entry < part; entry++) {
          const count = from.get(view, 0, at + entry);
          if (count !== 0) to.set(target, 0, start + entry, count);
        }
      }
    }
    if (block >= 0) yield { block, bytes };
    onEntry(Infinity);
  }

  async #switchTo({ table, tableClusters, blocks }: NewPlace): Promise<void> {
    const { file, geometry, headerFile, overlap, refcounts } = this.#metadata;
    const { clusterSize } = geometry;
    const bytes = new Uint8Array(tableClusters * clusterSize);
    const view = new DataView(bytes.buffer);
    for (const [block, hostOffset] of blocks) view.setBigUint64(block * 8, BigInt(hostOffset));
    await file.write(bytes, table);
    await file.flush();
    const old = [...refcounts.table.offsets()];
    const { hostOffset: oldTable, length } = refcounts.table;
    await headerFile.moveRefcountTable({ hostOffset: table, clusters: tableClusters }, this.#order);
    refcounts.table.replace(table, bytes);
    refcounts.cache.clear();
    overlap.release(oldTable, length * 8, Structure.refcountTable);
    for (const hostOffset of old) overlap.release(hostOffset, clusterSize, Structure.refcountBlock);
    overlap.protect(table, bytes.length, Structure.refcountTable);
    for (const hostOffset of blocks.values()) {
      overlap.protect(hostOffset, clusterSize, Structure.refcountBlock);
    }
  }

  #noRoom(cluster: number, count: number | bigint): CowherdError {
    const { file, geometry } = this.#metadata;
    const offset = cluster * geometry.clusterSize;
    const why =
      `Cannot decrease refcount entry width to ${2 ** this.#order} bits: ` +
      `Cluster at offset 0x${offset.toString(16)} has a refcount of ${count}`;
    return problemWith('ERR_COWHERD_UNSUPPORTED', file.filename, why, { offset });
  }
}
