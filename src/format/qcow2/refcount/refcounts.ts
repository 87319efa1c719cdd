/**
 * Reference counts of host clusters: look-up and change through the cache of refcount slices.
 * Where clusters come from is the allocator's business.
 */
import assert from 'node:assert/strict';
import type { Poison } from '../../../engine/words/poison.js';
import { SliceCache, type SliceCacheMemory } from '../../../engine/cache/slice-cache.js';
import type { Watchdog } from '../../../engine/words/watchdog.js';
import { type CowherdError, problemWith } from '../../../errors.js';
import type { StorageFile } from '../../../storage/storage.js';
import { CorruptionError } from '../tables/corruption.js';
import {
  type ClusterIndex,
  type Geometry,
  type HostOffset,
  after,
  asHostOffset,
} from '../layout/geometry.js';
import type { PointerTable } from '../tables/pointer-table.js';
import { type RefcountWidth, refcountWidth } from '../layout/refcount-width.js';

/** Refcount blocks that are being added, by their numbers, and where they lie. */
export type NewBlocks = ReadonlyMap<number, HostOffset>;

/** One thread's access to the reference counts of an open image. */
export class Refcounts {
  readonly table: PointerTable;
  readonly cache: SliceCache;
  readonly #file: StorageFile;
  readonly #geometry: Geometry;
  readonly #width: RefcountWidth;
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
    this.#width = refcountWidth(geometry.refcountOrder, file.filename);
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
    return this.#inSlice(cluster, (start, index) => this.#width.get(this.cache.view, start, index));
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
    return this.#inSlice(cluster, (start, index, slot) => {
      const end = Math.min(index + count, this.#geometry.refcountsPerSlice);
      for (let at = index; at < end; at++) {
        const value = this.#width.get(this.cache.view, start, at) + delta;
        assert(
          expected === undefined || value === expected + delta,
          'a cluster is handed out twice',
        );
        if (value < 0 || value > this.#geometry.maxRefcount) {
          throw this.#outOfRange(after(cluster, at - index), value);
        }
      }
      for (let at = index; at < end; at++) {
        const value = this.#width.get(this.cache.view, start, at) + delta;
        this.#width.set(this.cache.view, start, at, value);
      }
      this.cache.markDirty(slot);
      return end - index;
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
    return this.#inSlice(cluster, (start, index) => {
      let at = index;
      while (at < perSlice && this.#width.get(this.cache.view, start, at) !== 0) at++;
      let end = at;
      while (
        end < perSlice &&
        end - at < wanted &&
        this.#width.get(this.cache.view, start, end) === 0
      ) {
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
    const slot = await this.cache.acquire(key, (bytes) => this.#file.read(bytes, this.locate(key)));
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
    let used = 0;
    for (let index = 0; index < entries; index++) {
      if (this.#width.get(block, 0, index) !== 0) used++;
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
