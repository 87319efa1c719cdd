/**
 * Reference counts of host clusters: look-up and change through the cache of refcount slices.
 * Where clusters come from is the allocator's business.
 */
import assert from 'node:assert/strict';
import type { Poison } from '../../../engine/words/poison.js';
import { SliceCache, type SliceCacheMemory } from '../../../engine/cache/slice-cache.js';
import type { Watchdog } from '../../../engine/words/watchdog.js';
import { type CowherdError, problemWith } from '../../../errors.js';
import { announced } from '../../../storage/filters/announced.js';
import type { StorageFile } from '../../../storage/storage.js';
import { CorruptionError } from '../tables/corruption.js';
import {
  type ClusterIndex,
  type Geometry,
  type HostOffset,
  after,
  asClusterIndex,
  asHostOffset,
} from '../layout/geometry.js';
import type { PackedCounts } from './packed-counts.js';
import type { PointerTable } from '../tables/pointer-table.js';
import { type RefcountWidth, refcountWidth } from '../layout/refcount-width.js';

/** Refcount blocks that are being added, by their numbers, and where they lie. */
export type NewBlocks = ReadonlyMap<number, HostOffset>;

/** Clusters from one up to another, all counted in one slice. */
interface Part {
  readonly from: ClusterIndex;
  readonly to: ClusterIndex;
}

/** One thread's access to the reference counts of an open image. */
export class Refcounts {
  readonly table: PointerTable;
  readonly cache: SliceCache;
  readonly #file: StorageFile;
  readonly #geometry: Geometry;
  /**
   * Blocks this thread is adding: counted in memory, but not yet in the table. A flush that another
   * thread leads meanwhile leaves them dirty, since nothing points yet at what they count.
   */
  readonly #pendingBlocks = new Map<number, HostOffset>();

  constructor(
    file: StorageFile,
    geometry: Geometry,
    table: PointerTable,
    cacheMemory: SliceCacheMemory,
    poison?: Poison,
    watchdog?: Watchdog,
  ) {
    this.#file = file;
    this.#geometry = geometry;
    this.table = table;
    const locate = (key: number): number => this.#placeOf(key);
    this.cache = new SliceCache(cacheMemory, locate, poison, undefined, watchdog);
    this.cache.describe = (key) => {
      const first = key * geometry.refcountsPerSlice;
      return `the counts of host clusters from ${first} to ${first + geometry.refcountsPerSlice - 1}`;
    };
  }

  get #width(): RefcountWidth {
    return refcountWidth(this.#geometry.refcountOrder, this.#file.filename);
  }

  /** Whether a refcount block exists for a host cluster. */
  hasBlock(cluster: ClusterIndex): boolean {
    const block = Math.floor(cluster / this.#geometry.refcountsPerBlock);
    return this.#blockOffset(block) !== 0;
  }

  /**
   * Runs `count`, which may change counts in new, zeroed blocks at the given host offsets in bytes;
   * if it fails, the blocks are forgotten. Whoever calls then puts the blocks into the table.
   *
   * @param betweenRounds runs a section while no flush round has copies of counts under way, which
   *   it could otherwise write after the blocks have been forgotten
   */
  async withNewBlocks(
    blocks: NewBlocks,
    count: () => Promise<void>,
    betweenRounds: (section: () => void) => Promise<void>,
  ): Promise<void> {
    for (const [block, hostOffset] of blocks) this.#pendingBlocks.set(block, hostOffset);
    try {
      await count();
    } catch (error) {
      await betweenRounds(() => {
        this.#forget(blocks);
      });
      throw error;
    } finally {
      this.#pendingBlocks.clear();
    }
  }

  #forget(blocks: NewBlocks): void {
    const { slicesPerTable } = this.#geometry;
    this.#pendingBlocks.clear();
    for (const block of blocks.keys()) {
      for (let slice = 0; slice < slicesPerTable; slice++) {
        this.cache.drop(block * slicesPerTable + slice);
      }
    }
  }

  /** The reference count of a host cluster. */
  async get(cluster: ClusterIndex): Promise<number> {
    if (!this.hasBlock(cluster)) return 0;
    const width = this.#width;
    return this.#inSlice(cluster, (start, index) => width.get(this.cache.view, start, index));
  }

  /**
   * Counts one more reference to consecutive host clusters; blocks must exist for all of them. If it
   * fails, what was raised by then is lowered again, as far as that succeeds.
   *
   * @throws ERR_COWHERD_CORRUPT if a count would leave its range
   */
  async raise(cluster: ClusterIndex, count: number): Promise<void> {
    let next = cluster;
    try {
      while (next < cluster + count) {
        next = after(next, await this.#changeInSlice(next, cluster + count - next, 1));
      }
    } catch (error) {
      await this.takeBack(cluster, next - cluster);
      throw error;
    }
  }

  /** Counts the first reference to consecutive host clusters that `findFree` has just found. */
  async raiseFree(cluster: ClusterIndex, count: number): Promise<void> {
    const raised = await this.#changeInSlice(cluster, count, 1, 0);
    assert(raised === count, 'what is free in one slice is counted in another');
  }

  /** Lowers again what was raised in vain, as far as that succeeds; what is left is leaked. */
  async takeBack(cluster: ClusterIndex, count: number): Promise<void> {
    const { refcountsPerSlice } = this.#geometry;
    for (let next = cluster; next < cluster + count;) {
      const part = Math.min(cluster + count - next, refcountsPerSlice - (next % refcountsPerSlice));
      await this.#changeInSlice(next, part, -1).catch(() => undefined);
      next = after(next, part);
    }
  }

  /**
   * Counts one reference less to the first of consecutive host clusters, as many of them as one slice
   * counts: so it is known of each cluster whether it was lowered, even after a failure.
   *
   * @returns how many were lowered
   * @throws ERR_COWHERD_CORRUPT if a count would leave its range
   */
  lower(cluster: ClusterIndex, count: number): Promise<number> {
    return this.#changeInSlice(cluster, count, -1);
  }

  /**
   * Changes the counts of as many clusters as the first one's slice counts, or of none.
   *
   * @param expected what each of them is before
   */
  async #changeInSlice(
    cluster: ClusterIndex,
    count: number,
    delta: 1 | -1,
    expected?: number,
  ): Promise<number> {
    assert(count > 0, 'the counts of no clusters are changed');
    const width = this.#width;
    return this.#inSlice(cluster, (start, index, slot) => {
      const end = Math.min(index + count, this.#geometry.refcountsPerSlice);
      for (let at = index; at < end; at++) {
        const value = width.get(this.cache.view, start, at) + delta;
        assert(
          expected === undefined || value === expected + delta,
          'a cluster is handed out twice',
        );
        if (value < 0 || value > this.#geometry.maxRefcount) {
          throw this.#outOfRange(after(cluster, at - index), value);
        }
      }
      for (let at = index; at < end; at++) {
        const value = width.get(this.cache.view, start, at) + delta;
        width.set(this.cache.view, start, at, value);
      }
      this.cache.markDirty(slot);
      return end - index;
    });
  }

  /**
   * Counts so many references more, or less, to clusters as `counts` has for each; all of them or none, as
   * far as what was changed can be changed back.
   *
   * @param onFreed hears of consecutive clusters that have come to have no reference
   * @throws what `checkAll` does, with nothing changed
   */
  async changeAll(
    counts: PackedCounts,
    sign: 1 | -1,
    onFreed: (cluster: ClusterIndex, count: number) => void = () => undefined,
  ): Promise<void> {
    await this.checkAll(counts, sign);
    const end = counts.highest() + 1;
    const changed: Part[] = [];
    try {
      for (const part of this.#parts(counts, end)) {
        await this.#changePart(counts, part, sign, onFreed);
        changed.push(part);
      }
    } catch (error) {
      for (const part of changed) {
        await this.#changePart(counts, part, sign === 1 ? -1 : 1).catch(() => undefined);
      }
      throw error;
    }
  }

  /**
   * Looks whether so many references more, or less, to clusters can be counted.
   *
   * @throws ERR_COWHERD_UNSUPPORTED if a count has no room, ERR_COWHERD_CORRUPT if it is too low already
   */
  async checkAll(counts: PackedCounts, sign: 1 | -1): Promise<void> {
    const end = counts.highest() + 1;
    for (const part of this.#parts(counts, end)) await this.#checkPart(counts, part, sign);
  }

  /** The clusters with counts, by the slices of their references. */
  *#parts(counts: PackedCounts, end: number): Generator<Part> {
    const { refcountsPerSlice } = this.#geometry;
    for (let from = counts.nextUsed(0, end); from < end;) {
      const to = Math.min(end, (Math.floor(from / refcountsPerSlice) + 1) * refcountsPerSlice);
      yield { from: asClusterIndex(from), to: asClusterIndex(to) };
      from = counts.nextUsed(to, end);
    }
  }

  #checkPart(counts: PackedCounts, { from, to }: Part, sign: 1 | -1): Promise<void> {
    const { maxRefcount } = this.#geometry;
    const width = this.#width;
    return this.#inSlice(from, (start, index) => {
      for (let cluster: number = from, at = index; cluster < to; cluster++, at++) {
        const delta = counts.get(cluster);
        if (delta === 0) continue;
        const value = width.get(this.cache.view, start, at) + sign * delta;
        if (value > maxRefcount) throw this.#noRoom(cluster);
        if (value < 0) throw this.#outOfRange(asClusterIndex(cluster), value);
      }
    });
  }

  #changePart(
    counts: PackedCounts,
    { from, to }: Part,
    sign: 1 | -1,
    onFreed?: (cluster: ClusterIndex, count: number) => void,
  ): Promise<void> {
    const width = this.#width;
    return this.#inSlice(from, (start, index, slot) => {
      let freed = 0;
      for (let cluster: number = from, at = index; cluster < to; cluster++, at++) {
        const delta = counts.get(cluster);
        let value = -1;
        if (delta !== 0) {
          value = width.get(this.cache.view, start, at) + sign * delta;
          width.set(this.cache.view, start, at, value);
        }
        if (value === 0) {
          freed++;
        } else if (freed > 0) {
          onFreed?.(asClusterIndex(cluster - freed), freed);
          freed = 0;
        }
      }
      if (freed > 0) onFreed?.(asClusterIndex(to - freed), freed);
      this.cache.markDirty(slot);
    });
  }

  /**
   * Looks for free clusters in the slice that counts `cluster`, from there to the slice's end.
   *
   * @returns the first run of free clusters, at most `wanted` long; length 0 if there is none
   */
  async findFree(
    cluster: ClusterIndex,
    wanted: number,
  ): Promise<{ cluster: ClusterIndex; length: number }> {
    const perSlice = this.#geometry.refcountsPerSlice;
    const width = this.#width;
    return this.#inSlice(cluster, (start, index) => {
      let at = index;
      while (at < perSlice && width.get(this.cache.view, start, at) !== 0) at++;
      let end = at;
      while (end < perSlice && end - at < wanted && width.get(this.cache.view, start, end) === 0) {
        end++;
      }
      return { cluster: after(cluster, at - index), length: end - at };
    });
  }

  async #inSlice<Result>(
    cluster: ClusterIndex,
    section: (start: number, index: number, slot: number) => Result,
  ): Promise<Result> {
    const key = Math.floor(cluster / this.#geometry.refcountsPerSlice);
    const slot = await this.cache.acquire(key, (bytes) =>
      announced(this.#file, { read: 'refblock_load' }).read(bytes, this.locate(key)),
    );
    this.cache.lockExclusive(slot);
    try {
      return section(slot * this.cache.sliceSize, cluster % this.#geometry.refcountsPerSlice, slot);
    } finally {
      this.cache.unlockExclusive(slot);
      this.cache.unpin(slot);
    }
  }

  /** How many of the first `entries` counts of a refcount block are not zero. */
  countUsed(block: DataView, entries: number): number {
    const width = this.#width;
    let used = 0;
    for (let index = 0; index < entries; index++) {
      if (width.get(block, 0, index) !== 0) used++;
    }
    return used;
  }

  /** Host offset in bytes of the refcount slice of a key. */
  locate(key: number): HostOffset {
    const { slicesPerTable, sliceSize } = this.#geometry;
    const block = Math.floor(key / slicesPerTable);
    const hostOffset = this.#blockOffset(block);
    if (!this.#geometry.canHoldCluster(hostOffset)) {
      const problem = `refcount block ${block} lies where none can be (host offset ${hostOffset})`;
      throw new CorruptionError(this.#file.filename, problem, hostOffset);
    }
    if (hostOffset === 0) {
      const { filename } = this.#file;
      throw problemWith('ERR_COWHERD_CORRUPT', filename, `refcount block ${block} is missing`, {
        offset: 0,
      });
    }
    return after(hostOffset, (key % slicesPerTable) * sliceSize);
  }

  /** Host offset of the slice of a key, or -1 if its block has no place yet. */
  #placeOf(key: number): number {
    const block = Math.floor(key / this.#geometry.slicesPerTable);
    return this.#blockOffset(block) === 0 ? -1 : this.locate(key);
  }

  #blockOffset(block: number): HostOffset {
    const pending = this.#pendingBlocks.get(block);
    if (pending !== undefined) return pending;
    return block < this.table.length ? this.table.offset(block) : asHostOffset(0);
  }

  #noRoom(cluster: number): CowherdError {
    const { clusterSize, refcountBits } = this.#geometry;
    const place = `the cluster at host offset ${cluster * clusterSize}`;
    const why = `reference counts of ${refcountBits} bits have no room for another reference to ${place}`;
    const details = { operation: 'allocate', reason: 'Invalid argument' } as const;
    return problemWith('ERR_COWHERD_UNSUPPORTED', this.#file.filename, why, details);
  }

  #outOfRange(cluster: ClusterIndex, value: number): CowherdError {
    const offset = cluster * this.#geometry.clusterSize;
    return problemWith(
      'ERR_COWHERD_CORRUPT',
      this.#file.filename,
      `reference count of the cluster at host offset ${offset} cannot become ${value}`,
      { offset },
    );
  }
}
