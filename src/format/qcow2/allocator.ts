/**
 * Where host clusters come from: runs freed earlier, else the end of the file. Reserving a run
 * raises its reference counts in memory, so nothing can point at a cluster that is not counted.
 *
 * Growth of the refcount structures, inside the run that needs it:
 *
 *     end of file ──▶ [ new refcount table? ][ new refcount blocks ][ clusters handed out … ]
 *                       only if the old one     one for each range     counted, with the rest
 *                       is too short            not covered yet        of the run, in the blocks
 */
import type { LongMutex } from '../../engine/long-mutex.js';
import { CowherdError } from '../../errors.js';
import { maxRefcountTableBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { CorruptionError } from './corruption.js';
import type { Geometry } from './geometry.js';
import type { OverlapCheck } from './overlap.js';
import type { Refcounts } from './refcounts.js';
import { Structure } from './structures.js';

/** Refcount slices that one reservation may search for free clusters before it appends. */
const slicesPerSearch = 16;

/** Consecutive host clusters, counted once each and pointed at by nothing. */
export interface ClusterRun {
  readonly cluster: number;
  readonly length: number;
  /** Whether the clusters read as zeroes. */
  readonly knownZero: boolean;
}

/** What the allocator shares among threads, guarded by the refcount mutex. */
export interface AllocatorMemory {
  /**
   * [0] first cluster beyond everything in use; [1] where the search for free clusters goes on;
   * [2] the file's end when it was opened; [3] the end of what may hold something beyond [0], left
   * there by a growth of the refcount structures that failed.
   */
  readonly marks: SharedArrayBuffer;
}

/** Makes the shared memory for a file that ends at host cluster `end`. */
export function allocateAllocatorMemory(end: number): AllocatorMemory {
  const marks = new SharedArrayBuffer(32);
  new Float64Array(marks).set([end, 0, end]);
  return { marks };
}

/** How the refcount table and its blocks get to the disk. */
export interface RefcountTableHome {
  /**
   * Writes a longer refcount table, with new blocks in it, to a host offset in bytes and makes the
   * header point at it, durably; the blocks' counts reach the disk before.
   */
  move(hostOffset: number, entries: number, blocks: ReadonlyMap<number, number>): Promise<void>;
  /**
   * Makes sure that the header points at the present table, also after a move that failed: before
   * that nobody knows whether what lies at the end of the file is in use.
   */
  settle(): Promise<void>;
  /** Runs a section while no flush round has copies of reference counts under way. */
  betweenRounds(section: () => void): Promise<void>;
}

/** One thread's access to the allocation of host clusters. */
export class Allocator {
  readonly #file: StorageFile;
  readonly #geometry: Geometry;
  readonly #refcounts: Refcounts;
  readonly #mutex: LongMutex;
  readonly #marks: Float64Array;
  readonly #overlap: OverlapCheck;
  readonly #noteGrowth: () => void;
  readonly #home: RefcountTableHome;
  /** Clusters of refcount tables that have been moved away from, still counted. */
  #superseded: { readonly cluster: number; readonly length: number }[] = [];

  /** @param noteGrowth called when the file has become longer, before its new clusters are used */
  constructor(
    file: StorageFile,
    geometry: Geometry,
    refcounts: Refcounts,
    mutex: LongMutex,
    memory: AllocatorMemory,
    overlap: OverlapCheck,
    noteGrowth: () => void,
    home: RefcountTableHome,
  ) {
    this.#file = file;
    this.#geometry = geometry;
    this.#refcounts = refcounts;
    this.#mutex = mutex;
    this.#marks = new Float64Array(memory.marks);
    this.#overlap = overlap;
    this.#noteGrowth = noteGrowth;
    this.#home = home;
  }

  /** First host cluster beyond everything in use. */
  get end(): number {
    return this.#marks[0];
  }

  /**
   * Reserves consecutive host clusters, fewer than wanted where that fills a gap.
   *
   * @param wanted how many, at least 1
   * @throws ERR_COWHERD_NO_SPACE if the file cannot grow, ERR_COWHERD_CORRUPT if metadata lie where
   *   the counts say that nothing does
   */
  reserve(wanted: number): Promise<ClusterRun> {
    return this.#mutex.runExclusive(
      async () => (await this.#reuse(wanted)) ?? (await this.#append(wanted)),
    );
  }

  /** Counts one more reference to consecutive host clusters. */
  raise(cluster: number, count: number): Promise<void> {
    return this.#mutex.runExclusive(() => this.#refcounts.raise(cluster, count));
  }

  /**
   * Counts one reference less to the first of consecutive host clusters, which no table on disk may
   * still hold.
   *
   * @returns how many were lowered; whoever wants the others lowered too calls again
   */
  lower(cluster: number, count: number): Promise<number> {
    return this.#mutex.runExclusive(() => this.#lower(cluster, count));
  }

  /** Gives back, before the last flush, the clusters of tables that could not be given back earlier. */
  lowerSuperseded(): Promise<void> {
    return this.#mutex.runExclusive(() => this.#lowerSuperseded());
  }

  /** Cuts free clusters off the file's end, but none that the file had when it was opened. */
  trim(): Promise<void> {
    return this.#mutex.runExclusive(async () => {
      let end = this.end;
      const openedWith = this.#marks[2];
      while (end > openedWith && (await this.#refcounts.get(end - 1)) === 0) end--;
      if (end === this.end || this.#file.limits.blockDevice) return;
      this.#marks[0] = end;
      this.#marks[1] = Math.min(this.#marks[1], end);
      if ((await this.#file.size()) > end * this.#geometry.clusterSize) {
        await this.#file.truncate(end * this.#geometry.clusterSize);
      }
    });
  }

  async #lower(cluster: number, count: number): Promise<number> {
    const lowered = await this.#refcounts.lower(cluster, count);
    this.#marks[1] = Math.min(this.#marks[1], cluster);
    return lowered;
  }

  async #lowerSuperseded(): Promise<void> {
    for (let run; (run = this.#superseded.pop()) !== undefined;) {
      const { cluster, length } = run;
      let done = 0;
      try {
        while (done < length) done += await this.#lower(cluster + done, length - done);
      } catch (error) {
        this.#superseded.push({ cluster: cluster + done, length: length - done });
        throw error;
      }
    }
  }

  async #reuse(wanted: number): Promise<ClusterRun | undefined> {
    const perSlice = this.#geometry.refcountsPerSlice;
    for (let searched = 0; searched < slicesPerSearch; searched++) {
      const from = this.#marks[1];
      if (from >= this.end) return undefined;
      const sliceEnd = (Math.floor(from / perSlice) + 1) * perSlice;
      if (!this.#refcounts.hasBlock(from)) {
        this.#marks[1] = sliceEnd;
        continue;
      }
      const limit = Math.min(wanted, this.end - from);
      const found = await this.#refcounts.findFree(from, limit);
      const free = Math.min(found.length, this.end - found.cluster);
      if (free <= 0) {
        this.#marks[1] = sliceEnd;
      } else {
        const length = this.#beforeMetadata(found.cluster, free);
        await this.#refcounts.raise(found.cluster, length);
        this.#marks[1] = found.cluster + length;
        return { cluster: found.cluster, length, knownZero: false };
      }
    }
    return undefined;
  }

  /**
   * How many of so many clusters can be had before one that holds metadata, whatever its count says.
   *
   * @throws CorruptionError if the first one does
   */
  #beforeMetadata(cluster: number, clusters: number): number {
    const { clusterSize } = this.#geometry;
    const what = 'an allocation';
    if (cluster === 0) {
      const problem = `${what} would hit the header, whose cluster is counted as free`;
      throw new CorruptionError(this.#file.filename, problem, 0);
    }
    const hit = this.#overlap.find(cluster * clusterSize, clusters * clusterSize);
    if (hit === undefined) return clusters;
    if (hit.cluster > cluster) return hit.cluster - cluster;
    throw this.#overlap.refusal(hit, what);
  }

  async #append(most: number): Promise<ClusterRun> {
    const { clusterSize } = this.#geometry;
    await this.#home.settle();
    const start = await this.#uncountedEnd(most);
    const wanted = this.#beforeMetadata(start, most);
    const growth = this.#planGrowth(start, wanted);
    const end = start + growth.tableClusters + growth.blocks.length + wanted;
    // What the growth adds was not looked at yet.
    const looked = start + wanted;
    const rest = (end - looked) * clusterSize;
    this.#overlap.check(looked * clusterSize, rest, 'an allocation');
    await this.#extendFile(end);
    const { zeroInit, blockDevice } = this.#file.limits;
    const knownZero = zeroInit && !blockDevice && start >= this.#marks[3];
    const blocks = await this.#zeroNewBlocks(start, growth, knownZero);
    const { table } = this.#refcounts;
    const old = {
      cluster: table.hostOffset / clusterSize,
      length: (table.length * 8) / clusterSize,
    };
    try {
      await this.#refcounts.withNewBlocks(
        blocks,
        () => this.#countNew(start, end - start, growth.tableClusters, blocks),
        (section) => this.#home.betweenRounds(section),
      );
    } catch (error) {
      // A flush may have written counts into the new blocks, or the move its table.
      this.#marks[3] = Math.max(this.#marks[3], end - wanted);
      throw error;
    }
    for (const [block, hostOffset] of blocks) {
      this.#overlap.protect(hostOffset, clusterSize, Structure.refcountBlock);
      table.set(block, hostOffset, false);
    }
    const searchedAll = this.#marks[1] >= start;
    this.#marks[0] = end;
    if (searchedAll) this.#marks[1] = end;
    if (growth.tableClusters > 0) this.#superseded.push(old);
    // The new clusters are there, whether or not the old ones can be given back right now.
    await this.#lowerSuperseded().catch(() => undefined);
    return { cluster: end - wanted, length: wanted, knownZero };
  }

  /** Counts new clusters, and moves the refcount table to the first of them if it has to grow. */
  async #countNew(
    start: number,
    count: number,
    tableClusters: number,
    blocks: ReadonlyMap<number, number>,
  ): Promise<void> {
    const { clusterSize } = this.#geometry;
    await this.#refcounts.raise(start, count);
    if (tableClusters === 0) return;
    try {
      await this.#home.move(start * clusterSize, (tableClusters * clusterSize) / 8, blocks);
    } catch (error) {
      await this.#refcounts.takeBack(start, count);
      throw error;
    }
  }

  /** The end of the file, moved beyond clusters that are counted although they lie past it. */
  async #uncountedEnd(wanted: number): Promise<number> {
    let start = this.end;
    for (let cluster = start; cluster < start + wanted && this.#refcounts.hasBlock(cluster);) {
      const found = await this.#refcounts.findFree(cluster, wanted);
      if (found.cluster > cluster) {
        start = found.cluster;
        cluster = found.cluster;
      }
      cluster += found.length;
    }
    return start;
  }

  /** Which blocks, and whether a longer table, a run of `wanted` clusters at `start` needs. */
  #planGrowth(start: number, wanted: number): { tableClusters: number; blocks: number[] } {
    const { refcountsPerBlock, clusterSize } = this.#geometry;
    let tableClusters = 0;
    let blocks: number[] = [];
    for (;;) {
      const end = start + tableClusters + blocks.length + wanted;
      const lastBlock = Math.floor((end - 1) / refcountsPerBlock);
      const missing: number[] = [];
      for (let block = Math.floor(start / refcountsPerBlock); block <= lastBlock; block++) {
        if (!this.#refcounts.hasBlock(block * refcountsPerBlock)) missing.push(block);
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
    if (tableClusters * clusterSize > maxRefcountTableBytes) {
      throw new CowherdError(
        'ERR_COWHERD_NO_SPACE',
        `'${this.#file.filename}': the reference count table cannot grow further; the image file is too large for its cluster size`,
        { filename: this.#file.filename },
      );
    }
    return { tableClusters, blocks };
  }

  /** Makes sure that new refcount blocks read as zeroes. @returns their host offsets in bytes */
  async #zeroNewBlocks(
    start: number,
    growth: { tableClusters: number; blocks: number[] },
    knownZero: boolean,
  ): Promise<Map<number, number>> {
    const { clusterSize } = this.#geometry;
    const first = (start + growth.tableClusters) * clusterSize;
    if (!knownZero && growth.blocks.length > 0) {
      await this.#file.writeZeroes(first, growth.blocks.length * clusterSize, false);
    }
    return new Map(growth.blocks.map((block, index) => [block, first + index * clusterSize]));
  }

  async #extendFile(end: number): Promise<void> {
    const { filename } = this.#file;
    const bytes = end * this.#geometry.clusterSize;
    if (bytes > Number.MAX_SAFE_INTEGER) {
      throw new CowherdError('ERR_COWHERD_NO_SPACE', `'${filename}' cannot grow further`, {
        filename,
      });
    }
    const size = await this.#file.size();
    if (size >= bytes) return;
    if (this.#file.limits.blockDevice) {
      throw new CowherdError('ERR_COWHERD_NO_SPACE', `No space left on device '${filename}'`, {
        filename,
        offset: bytes,
      });
    }
    // Reserved together, blocks cost a write to one of the clusters less than if each made its own.
    await this.#file.truncate(bytes, true);
    this.#noteGrowth();
  }
}
