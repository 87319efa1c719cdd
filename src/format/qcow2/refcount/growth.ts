/**
 * Growth of the reference counts with the file: blocks that are missing, and a longer refcount table,
 * lie at the begin of the run of clusters that needs them.
 *
 *     end of file ──▶ [ new refcount table? ][ new refcount blocks ][ clusters handed out … ]
 *                       only if the old one     one for each range     counted, with the rest
 *                       is too short            not covered yet        of the run, in the blocks
 *
 * The caller holds the refcount mutex.
 */
import { problemWith } from '../../../errors.js';
import { maxRefcountTableBytes } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import { type ClusterIndex, type Geometry, type HostOffset, after } from '../layout/geometry.js';
import { Structure } from '../overlap/levels.js';
import type { OverlapCheck } from '../overlap/overlap.js';
import type { NewBlocks, Refcounts } from './refcounts.js';

/** What the refcount structures need so that more clusters can be counted. */
export interface Growth {
  /** Clusters of a longer refcount table, 0 if the present one does. */
  readonly tableClusters: number;
  /** Where that begins. */
  readonly tableAt: ClusterIndex;
  /** Numbers of the blocks that are missing, and where each is to lie, in the same order. */
  readonly blocks: ReadonlyMap<number, ClusterIndex>;
}

/** Consecutive clusters that are counted once each. */
export interface CountedRange {
  readonly cluster: ClusterIndex;
  readonly length: number;
}

/** How the refcount table and its blocks get to the disk. */
export interface RefcountTableHome {
  /**
   * Writes a longer refcount table, with new blocks in it, to a host offset in bytes and makes the
   * header point at it, durably; the blocks' counts reach the disk before.
   */
  move(hostOffset: HostOffset, entries: number, blocks: NewBlocks): Promise<void>;
  /**
   * Makes sure that the header points at the present table, also after a move that failed: before
   * that nobody knows whether what lies at the end of the file is in use.
   */
  settle(): Promise<void>;
  /** Runs a section while no flush round has copies of reference counts under way. */
  betweenRounds(section: () => void): Promise<void>;
}

/** One thread's way to have more clusters counted. */
export class RefcountGrowth {
  readonly #file: StorageFile;
  readonly #geometry: Geometry;
  readonly #refcounts: Refcounts;
  readonly #overlap: OverlapCheck;
  readonly #home: RefcountTableHome;
  /** Clusters of refcount tables that have been moved away from, still counted. */
  #superseded: { readonly cluster: ClusterIndex; readonly length: number }[] = [];

  constructor(
    file: StorageFile,
    geometry: Geometry,
    refcounts: Refcounts,
    overlap: OverlapCheck,
    home: RefcountTableHome,
  ) {
    this.#file = file;
    this.#geometry = geometry;
    this.#refcounts = refcounts;
    this.#overlap = overlap;
    this.#home = home;
  }

  /** Call before clusters beyond the end are used; see `RefcountTableHome`. */
  settle(): Promise<void> {
    return this.#home.settle();
  }

  /**
   * Which blocks, and whether a longer table, a run at `start` needs of which `wanted` clusters are to be
   * left beside them.
   *
   * @throws ERR_COWHERD_NO_SPACE if the table would be longer than one may be
   */
  plan(start: ClusterIndex, wanted: number): Growth {
    const { refcountsPerBlock, clusterSize } = this.#geometry;
    let tableClusters = 0;
    let blocks: number[] = [];
    for (;;) {
      const end = start + tableClusters + blocks.length + wanted;
      const lastBlock = Math.floor((end - 1) / refcountsPerBlock);
      const missing: number[] = [];
      for (let block = Math.floor(start / refcountsPerBlock); block <= lastBlock; block++) {
        if (!this.#refcounts.hasBlock(this.#geometry.firstCounted(block))) missing.push(block);
      }
      let table = tableClusters;
      if (lastBlock >= this.#refcounts.table.length && table * clusterSize < (lastBlock + 1) * 8) {
        // Half as long again, so that growing stays rare.
        table = Math.ceil((Math.ceil((lastBlock + 1) * 1.5) * 8) / clusterSize);
      }
      if (table === tableClusters && missing.length === blocks.length) break;
      tableClusters = table;
      blocks = missing;
    }
    const { capacity } = this.#refcounts.table;
    if (tableClusters * clusterSize > Math.min(maxRefcountTableBytes, capacity * 8)) {
      throw problemWith(
        'ERR_COWHERD_NO_SPACE',
        this.#file.filename,
        'the reference count table cannot grow further; the image file is too large for its cluster size',
      );
    }
    const first = after(start, tableClusters);
    const places = blocks.map((block, index) => [block, after(first, index)] as const);
    return { tableClusters, tableAt: start, blocks: new Map(places) };
  }

  /**
   * Counts clusters once each, those of the growth included; the file is as long already.
   *
   * @param knownZero whether those of the growth read as zeroes
   */
  async count(ranges: readonly CountedRange[], growth: Growth, knownZero: boolean): Promise<void> {
    const { clusterSize } = this.#geometry;
    const { events } = this.#file;
    if (growth.tableClusters > 0) await events?.hear('reftable_grow');
    if (growth.blocks.size > 0) await events?.hear('refblock_alloc');
    const blocks = await this.#zeroNewBlocks(growth, knownZero);
    const { table } = this.#refcounts;
    const old = {
      cluster: this.#geometry.clusterAt(table.hostOffset),
      length: (table.length * 8) / clusterSize,
    };
    await this.#refcounts.withNewBlocks(
      blocks,
      () => this.#countNew(ranges, growth, blocks),
      (section) => this.#home.betweenRounds(section),
    );
    if (blocks.size > 0) await events?.hear('refblock_alloc_hookup');
    for (const [block, hostOffset] of blocks) {
      this.#overlap.protect(hostOffset, clusterSize, Structure.refcountBlock);
      table.set(block, hostOffset, false);
    }
    if (growth.tableClusters > 0) this.#superseded.push(old);
  }

  /**
   * Gives back the clusters of tables that have been moved away from; those that could not be given back
   * are tried again by the next call.
   *
   * @param lower counts one reference less to the first of consecutive clusters, and says of how many
   */
  async lowerSuperseded(
    lower: (cluster: ClusterIndex, count: number) => Promise<number>,
  ): Promise<void> {
    for (let run; (run = this.#superseded.pop()) !== undefined;) {
      const { cluster, length } = run;
      let done = 0;
      try {
        while (done < length) done += await lower(after(cluster, done), length - done);
      } catch (error) {
        this.#superseded.push({ cluster: after(cluster, done), length: length - done });
        throw error;
      }
    }
  }

  /** Counts new clusters, and moves the refcount table to those that are for it if it has to grow. */
  async #countNew(
    ranges: readonly CountedRange[],
    { tableClusters, tableAt }: Growth,
    blocks: NewBlocks,
  ): Promise<void> {
    const { clusterSize } = this.#geometry;
    const counted: CountedRange[] = [];
    try {
      for (const range of ranges) {
        await this.#refcounts.raise(range.cluster, range.length);
        counted.push(range);
      }
      if (tableClusters === 0) return;
      const hostOffset = this.#geometry.startOf(tableAt);
      await this.#home.move(hostOffset, (tableClusters * clusterSize) / 8, blocks);
    } catch (error) {
      for (const { cluster, length } of counted) await this.#refcounts.takeBack(cluster, length);
      throw error;
    }
  }

  /** Makes sure that new refcount blocks read as zeroes. @returns their host offsets in bytes */
  async #zeroNewBlocks({ tableClusters, blocks }: Growth, knownZero: boolean): Promise<NewBlocks> {
    const { clusterSize } = this.#geometry;
    const writes = tableClusters > 0 ? 'refblock_alloc_write_blocks' : 'refblock_alloc_write';
    if (blocks.size > 0) await this.#file.events?.hear(writes);
    const places = [...blocks.values()];
    for (let from = 0; !knownZero && from < places.length;) {
      let to = from + 1;
      while (to < places.length && places[to] === places[from] + to - from) to++;
      const length = (to - from) * clusterSize;
      await this.#file.writeZeroes(this.#geometry.startOf(places[from]), length, false);
      from = to;
    }
    return new Map(
      [...blocks].map(([block, cluster]) => [block, this.#geometry.startOf(cluster)] as const),
    );
  }
}
