/**
 * Where host clusters come from: runs freed earlier, else the end of the file. Reserving a run
 * raises its reference counts in memory, so nothing can point at a cluster that is not counted.
 */
import { FreeIndex, allocateFreeIndex } from '../../../engine/space/free-index.js';
import type { LongMutex } from '../../../engine/words/long-mutex.js';
import { CowherdError } from '../../../errors.js';
import type { StorageFile } from '../../../storage/storage.js';
import { CorruptionError } from '../tables/corruption.js';
import { type ClusterIndex, type Geometry, after, asClusterIndex } from '../layout/geometry.js';
import type { OverlapCheck } from '../overlap/overlap.js';
import { planGrowthBehind } from './growth-behind.js';
import type { CountedRange, Growth, RefcountGrowth } from './growth.js';
import type { PackedCounts } from './packed-counts.js';
import type { Refcounts } from './refcounts.js';

/** Units never looked at before that one reservation searches before it appends. */
const unitsPerSearch = 16;
/** Units of the index that the clusters of one refcount block make up, at most. */
const mostUnitsPerBlock = 16;

/** Consecutive host clusters, counted once each and pointed at by nothing. */
export interface ClusterRun {
  readonly cluster: ClusterIndex;
  readonly length: number;
  /** Whether the clusters read as zeroes. */
  readonly knownZero: boolean;
}

/** What the allocator shares among threads, guarded by the refcount mutex. */
export interface AllocatorMemory {
  /**
   * [0] first cluster beyond everything in use; [1] the file's end when it was opened; [2] the end of
   * what may hold something beyond [0]: what the file had there when it was opened, and what a growth
   * of the refcount structures that failed has left; [3] where `reserveFirstFit` begins to look.
   */
  readonly marks: SharedArrayBuffer;
  /** Which units of clusters may have free ones. */
  readonly free: SharedArrayBuffer;
}

/** Units of the index in which the clusters of one refcount block are counted. */
function unitsPerBlock(geometry: Geometry): number {
  return Math.min(geometry.slicesPerTable, mostUnitsPerBlock);
}

/**
 * Makes the shared memory for the space of a file.
 *
 * @param fileEnd the cluster at which it ends
 * @param blocks how many of its ranges have a refcount block, up to the last one that has; beyond
 *   them nothing is in use, however long the file (or device) is
 * @param mostBlocks how many there may come to be
 */
export function allocateAllocatorMemory(
  geometry: Geometry,
  fileEnd: number,
  blocks: number,
  mostBlocks: number,
): AllocatorMemory {
  const marks = new SharedArrayBuffer(32);
  const end = Math.min(fileEnd, blocks * geometry.refcountsPerBlock);
  new Float64Array(marks).set([end, fileEnd, fileEnd]);
  return { marks, free: allocateFreeIndex(mostBlocks * unitsPerBlock(geometry)) };
}

/** One thread's access to the allocation of host clusters. */
export class Allocator {
  readonly #file: StorageFile;
  readonly #geometry: Geometry;
  readonly #refcounts: Refcounts;
  readonly #mutex: LongMutex;
  readonly #marks: Float64Array;
  readonly #free: FreeIndex;
  readonly #overlap: OverlapCheck;
  readonly #noteGrowth: () => void;
  readonly #growth: RefcountGrowth;
  /** @param noteGrowth called when the file has become longer, before its new clusters are used */
  constructor(
    file: StorageFile,
    geometry: Geometry,
    refcounts: Refcounts,
    mutex: LongMutex,
    memory: AllocatorMemory,
    overlap: OverlapCheck,
    noteGrowth: () => void,
    growth: RefcountGrowth,
  ) {
    this.#file = file;
    this.#geometry = geometry;
    this.#refcounts = refcounts;
    this.#mutex = mutex;
    this.#marks = new Float64Array(memory.marks);
    this.#free = new FreeIndex(memory.free);
    this.#overlap = overlap;
    this.#noteGrowth = noteGrowth;
    this.#growth = growth;
  }

  /** Clusters of a unit of the index. */
  get #unit(): number {
    return this.#geometry.refcountsPerBlock / unitsPerBlock(this.#geometry);
  }

  /** First host cluster beyond everything in use. */
  get end(): ClusterIndex {
    return asClusterIndex(this.#marks[0]);
  }

  /**
   * Reserves consecutive host clusters, fewer than wanted where that fills a gap.
   *
   * @param wanted how many, at least 1
   * @throws ERR_COWHERD_NO_SPACE if nothing is free and the file cannot grow, ERR_COWHERD_CORRUPT if
   *   metadata lie where the counts say that nothing does
   */
  reserve(wanted: number): Promise<ClusterRun> {
    return this.#mutex.runExclusive(async () => {
      const found = await this.#reuse(wanted, unitsPerSearch);
      if (found !== undefined) return found;
      return this.#orAnywhere(wanted, () => this.#append(this.end, wanted));
    });
  }

  /**
   * Reserves so many consecutive host clusters, all of them.
   *
   * @throws ERR_COWHERD_NO_SPACE if they are not to be had in one piece
   */
  reserveWhole(wanted: number): Promise<ClusterRun> {
    return this.#mutex.runExclusive(async () => {
      const found = await this.#reuseWhole(wanted);
      if (found?.length === wanted) return found;
      if (found !== undefined) await this.#giveBack(found);
      const run = await this.#append(this.end, wanted);
      if (run.length === wanted) return run;
      await this.#giveBack(run);
      const { filename } = this.#file;
      throw new CowherdError('ERR_COWHERD_NO_SPACE', `No space left on device '${filename}'`, {
        filename,
      });
    });
  }

  /**
   * Reserves consecutive host clusters where QEMU does: behind those that the same request has got last, as many as
   * are free there, or else in the first gap that has all of them, or at the end. Gaps that were too short are not
   * looked at again before something is given back in front of them.
   *
   * @param wanted how many, at least 1; fewer are given also where metadata lie that are counted as free
   * @param follows behind which of them
   */
  reserveFirstFit(wanted: number, follows?: ClusterIndex): Promise<ClusterRun> {
    if (this.#file.limits.blockDevice) return this.reserve(wanted);
    return this.#mutex.runExclusive(() =>
      this.#orAnywhere(wanted, () => this.#firstFitOf(wanted, follows)),
    );
  }

  /** Counts one more reference to consecutive host clusters. */
  raise(cluster: ClusterIndex, count: number): Promise<void> {
    return this.#mutex.runExclusive(() => this.#refcounts.raise(cluster, count));
  }

  /**
   * Counts one reference less to the first of consecutive host clusters, which no table on disk may
   * still hold.
   *
   * @returns how many were lowered; whoever wants the others lowered too calls again
   */
  lower(cluster: ClusterIndex, count: number): Promise<number> {
    return this.#mutex.runExclusive(() => this.#lower(cluster, count));
  }

  /** Counts one reference less to consecutive clusters that no table has ever pointed at. */
  async lowerAll(cluster: ClusterIndex, count: number): Promise<void> {
    for (let done = 0; done < count;) done += await this.lower(after(cluster, done), count - done);
  }

  /** Looks whether `changeAll` can be done; see `Refcounts.checkAll`. */
  checkAll(counts: PackedCounts, sign: 1 | -1): Promise<void> {
    return this.#mutex.runExclusive(() => this.#refcounts.checkAll(counts, sign));
  }

  /**
   * Counts so many references more, or less, to clusters as `counts` has for each, while no queue runs a
   * request; see `Refcounts.changeAll`.
   *
   * @returns the runs of clusters that have come to be free
   */
  changeAll(
    counts: PackedCounts,
    sign: 1 | -1,
  ): Promise<readonly { readonly cluster: ClusterIndex; readonly length: number }[]> {
    return this.#mutex.runExclusive(async () => {
      const freed: { cluster: ClusterIndex; length: number }[] = [];
      await this.#refcounts.changeAll(counts, sign, (cluster, length) => {
        this.#noteFree(cluster, length);
        this.#lookFrom(cluster);
        const last = freed.at(-1);
        if (last !== undefined && last.cluster + last.length === cluster) last.length += length;
        else freed.push({ cluster, length });
      });
      return freed;
    });
  }

  /**
   * Runs a section that puts other counts in place of all there are, in which nothing is reserved or given back.
   *
   * @param section says whether it did
   */
  renew(section: () => Promise<boolean>): Promise<boolean> {
    return this.#mutex.runExclusive(async () => {
      const isRenewed = await section();
      if (isRenewed) {
        this.#noteFree(asClusterIndex(0), this.end);
        this.#lookFrom(asClusterIndex(0));
      }
      return isRenewed;
    });
  }

  /** Gives back, before the last flush, the clusters of tables that could not be given back earlier. */
  lowerSuperseded(): Promise<void> {
    return this.#mutex.runExclusive(() => this.#lowerSuperseded());
  }

  /**
   * Cuts free clusters off the file's end.
   *
   * @param all also those that the file had when it was opened
   */
  trim(all = false): Promise<void> {
    return this.#mutex.runExclusive(async () => {
      let end = this.end;
      const openedWith = all ? 0 : this.#marks[1];
      while (end > openedWith && (await this.#refcounts.get(after(end, -1))) === 0) end--;
      if (end === this.end || this.#file.limits.blockDevice) return;
      this.#marks[0] = end;
      if ((await this.#file.size()) > end * this.#geometry.clusterSize) {
        await this.#file.truncate(end * this.#geometry.clusterSize);
      }
    });
  }

  async #giveBack({ cluster, length }: ClusterRun): Promise<void> {
    for (let done = 0; done < length;)
      done += await this.#lower(after(cluster, done), length - done);
  }

  async #lower(cluster: ClusterIndex, count: number): Promise<number> {
    const lowered = await this.#refcounts.lower(cluster, count);
    this.#noteFree(cluster, lowered);
    this.#lookFrom(cluster);
    return lowered;
  }

  #lowerSuperseded(): Promise<void> {
    return this.#growth.lowerSuperseded((cluster, count) => this.#lower(cluster, count));
  }

  /** @param mostUnits how many units may be searched in vain */
  async #reuse(wanted: number, mostUnits: number): Promise<ClusterRun | undefined> {
    for (let searched = 0; searched < mostUnits; searched++) {
      const unit = this.#free.first;
      const start = asClusterIndex(unit * this.#unit);
      if (start >= this.end) return undefined;
      const found = await this.#findInUnit(start, wanted);
      if (found === undefined) {
        this.#free.setFull(unit);
        // One without a block is passed over without being read.
        if (!this.#refcounts.hasBlock(start)) searched--;
        continue;
      }
      const length = this.#beforeMetadata(found.cluster, found.length);
      await this.#refcounts.raiseFree(found.cluster, length);
      return { cluster: found.cluster, length, knownZero: false };
    }
    return undefined;
  }

  /** The same for clusters that are of use all together; where QEMU has them if the others of the file are. */
  #reuseWhole(wanted: number): Promise<ClusterRun | undefined> {
    const isFirstFit = this.#lookedTo > 0 && !this.#file.limits.blockDevice;
    return isFirstFit ? this.#firstFitOf(wanted, undefined) : this.#reuse(wanted, unitsPerSearch);
  }

  /** The first free clusters of a unit, at most `wanted`, none of them beyond the end. */
  async #findInUnit(
    start: ClusterIndex,
    wanted: number,
  ): Promise<{ cluster: ClusterIndex; length: number } | undefined> {
    const { refcountsPerSlice } = this.#geometry;
    const unitEnd = Math.min(start + this.#unit, this.end);
    if (!this.#refcounts.hasBlock(start)) return undefined;
    for (let from = start; from < unitEnd; from = after(from, refcountsPerSlice)) {
      const found = await this.#refcounts.findFree(from, wanted);
      const length = Math.min(found.length, unitEnd - found.cluster);
      if (length > 0) return { cluster: found.cluster, length };
    }
    return undefined;
  }

  /** Uses a range before the end that has no refcount block. */
  async #useGap(wanted: number): Promise<ClusterRun | undefined> {
    const { refcountsPerBlock } = this.#geometry;
    for (let block = 0; this.#geometry.firstCounted(block) < this.end; block++) {
      const start = this.#geometry.firstCounted(block);
      // A block of its own and at least one cluster have to fit.
      const room = Math.min(refcountsPerBlock, this.end - start) - 1;
      if (room < 1 || this.#refcounts.hasBlock(start)) continue;
      return this.#append(start, Math.min(wanted, room));
    }
    return undefined;
  }

  #noteFree(cluster: ClusterIndex, count: number): void {
    if (count === 0) return;
    const last = cluster + count - 1;
    this.#free.setFree(Math.floor(cluster / this.#unit), Math.floor(last / this.#unit));
  }

  /**
   * How many of so many clusters can be had before one that holds metadata, whatever its count says.
   *
   * @throws CorruptionError if the first one does
   */
  #beforeMetadata(cluster: ClusterIndex, clusters: number): number {
    const { clusterSize } = this.#geometry;
    const what = 'an allocation';
    if (cluster === 0) {
      const problem = `${what} would hit the header, whose cluster is counted as free`;
      throw new CorruptionError(this.#file.filename, problem, 0);
    }
    const hit = this.#overlap.find(this.#geometry.startOf(cluster), clusters * clusterSize);
    if (hit === undefined) return clusters;
    if (hit.cluster > cluster) return hit.cluster - cluster;
    throw this.#overlap.refusal(hit, what);
  }

  /** Counts clusters from `from` on that no refcount block counts yet, or that lie beyond the end. */
  async #append(from: ClusterIndex, most: number): Promise<ClusterRun> {
    const { clusterSize, refcountsPerBlock } = this.#geometry;
    await this.#growth.settle();
    const start = await this.#uncountedFrom(from, most);
    const { wanted, growth, end } = await this.#planWithin(start, most);
    // What the growth adds was not looked at yet.
    const looked = after(start, wanted);
    const rest = (end - looked) * clusterSize;
    this.#overlap.check(this.#geometry.startOf(looked), rest, 'an allocation');
    await this.#extendFile(end);
    const knownZero = this.#isKnownZero(this.#marks[2], start);
    try {
      const all = { cluster: start, length: end - start };
      await this.#growth.count([all], growth, knownZero);
    } catch (error) {
      // A flush may have written counts into the new blocks, or the move its table.
      this.#marks[2] = Math.max(this.#marks[2], end - wanted);
      throw error;
    }
    for (const block of growth.blocks.keys()) {
      this.#noteFree(this.#geometry.firstCounted(block), refcountsPerBlock);
    }
    this.#marks[0] = Math.max(this.#marks[0], end);
    // The new clusters are there, whether or not the old ones can be given back right now.
    await this.#lowerSuperseded().catch(() => undefined);
    return { cluster: after(end, -wanted), length: wanted, knownZero };
  }

  /** Reserves by a way that may find no room, and then whatever there is. */
  async #orAnywhere(wanted: number, way: () => Promise<ClusterRun>): Promise<ClusterRun> {
    try {
      return await way();
    } catch (error) {
      if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_NO_SPACE') throw error;
      // What the search has not come to yet is to be used before anybody hears of it.
      const run = (await this.#reuse(wanted, Infinity)) ?? (await this.#useGap(wanted));
      if (run === undefined) throw error;
      return run;
    }
  }

  async #firstFitOf(wanted: number, follows: ClusterIndex | undefined): Promise<ClusterRun> {
    await this.#growth.settle();
    for (;;) {
      const behind = follows === undefined ? 0 : await this.#freeFrom(follows, wanted);
      const isBehind = follows !== undefined && behind > 0;
      const cluster = isBehind ? follows : await this.#firstFit(this.#lookedTo, wanted);
      const length = this.#beforeMetadata(cluster, isBehind ? behind : wanted);
      const end = after(cluster, length);
      const uncounted = this.#firstUncounted(cluster, end);
      if (uncounted !== undefined) {
        const place = isBehind
          ? await this.#placeBeside(cluster, uncounted)
          : await this.#firstFit(end, 1);
        await this.#growBehind(planGrowthBehind(this.#geometry, this.#refcounts, uncounted, place));
        continue;
      }
      await this.#extendFile(end);
      await this.#refcounts.raise(cluster, length);
      const knownZero = this.#isKnownZero(Math.max(this.end, this.#marks[2]), cluster);
      this.#marks[0] = Math.max(this.end, end);
      if (!isBehind) this.#marks[3] = end;
      return { cluster, length, knownZero };
    }
  }

  /** Where `reserveFirstFit` begins to look. */
  get #lookedTo(): ClusterIndex {
    return asClusterIndex(this.#marks[3]);
  }

  /** How many clusters are free from one on, at most so many. */
  async #freeFrom(cluster: ClusterIndex, most: number): Promise<number> {
    let length = 0;
    while (length < most) {
      const at = after(cluster, length);
      if (!this.#refcounts.hasBlock(at)) return at >= this.end ? most : length;
      const found = await this.#refcounts.findFree(at, most - length);
      if (found.cluster !== at) break;
      length += found.length;
    }
    return length;
  }

  /** The first cluster that is free beside a run that ends at one which no block counts. */
  async #placeBeside(run: ClusterIndex, uncounted: ClusterIndex): Promise<ClusterIndex> {
    const place = await this.#firstFit(this.#lookedTo, 1);
    return place >= run && place < uncounted ? this.#firstFit(uncounted, 1) : place;
  }

  /** Has `reserveFirstFit` look at a cluster that is free. */
  #lookFrom(cluster: ClusterIndex): void {
    this.#marks[3] = Math.min(this.#marks[3], cluster);
  }

  /** Whether new clusters from one on read as zeroes, if nothing lies beyond `end`. */
  #isKnownZero(end: number, cluster: ClusterIndex): boolean {
    const { zeroInit, blockDevice } = this.#file.limits;
    return zeroInit && !blockDevice && cluster >= end;
  }

  /** The first of so many consecutive clusters that are free, from one on; they may lie beyond the end. */
  async #firstFit(from: ClusterIndex, wanted: number): Promise<ClusterIndex> {
    let start = from;
    for (let length = 0; length < wanted;) {
      const at = after(start, length);
      if (!this.#refcounts.hasBlock(at)) {
        if (at >= this.end) break;
        // What no block counts between others is left to them that fill the file.
        start = this.#geometry.firstCounted(Math.floor(at / this.#geometry.refcountsPerBlock) + 1);
        length = 0;
        continue;
      }
      const found = await this.#refcounts.findFree(at, wanted - length);
      if (found.cluster === at) length += found.length;
      else [start, length] = [found.cluster, found.length];
    }
    return start;
  }

  /** The first cluster of a run that no block counts; undefined if all are counted. */
  #firstUncounted(cluster: ClusterIndex, end: ClusterIndex): ClusterIndex | undefined {
    const { refcountsPerBlock } = this.#geometry;
    for (let at = cluster; at < end;) {
      if (!this.#refcounts.hasBlock(at)) return at;
      at = this.#geometry.firstCounted(Math.floor(at / refcountsPerBlock) + 1);
    }
    return undefined;
  }

  /** Has more clusters counted. */
  async #growBehind(growth: Growth): Promise<void> {
    const { tableAt, tableClusters, blocks } = growth;
    const ranges = joined([
      ...[...blocks.values()].map((cluster) => ({ cluster, length: 1 })),
      ...(tableClusters > 0 ? [{ cluster: tableAt, length: tableClusters }] : []),
    ]);
    const [first, last] = [ranges[0], ranges[ranges.length - 1]];
    const end = after(last.cluster, last.length);
    for (const { cluster, length } of ranges) {
      const { clusterSize } = this.#geometry;
      this.#overlap.check(this.#geometry.startOf(cluster), length * clusterSize, 'an allocation');
    }
    await this.#extendFile(end);
    const knownZero = this.#isKnownZero(Math.max(this.end, this.#marks[2]), first.cluster);
    try {
      await this.#growth.count(ranges, growth, knownZero);
    } catch (error) {
      this.#marks[2] = Math.max(this.#marks[2], end);
      throw error;
    }
    for (const block of blocks.keys()) {
      this.#noteFree(this.#geometry.firstCounted(block), this.#geometry.refcountsPerBlock);
    }
    this.#marks[0] = Math.max(this.end, end);
    await this.#lowerSuperseded().catch(() => undefined);
  }

  /** Moves `from` beyond clusters that are counted although they lie past the end. */
  async #uncountedFrom(from: ClusterIndex, wanted: number): Promise<ClusterIndex> {
    let start = from;
    for (let cluster = start; cluster < start + wanted && this.#refcounts.hasBlock(cluster);) {
      const found = await this.#refcounts.findFree(cluster, wanted);
      if (found.cluster > cluster) {
        start = found.cluster;
        cluster = found.cluster;
      }
      cluster = after(cluster, found.length);
    }
    return start;
  }

  /**
   * How many clusters of `most` can be had from `start` on, with the growth of the refcount structures
   * that they need: those before metadata, and on a block device those before its end.
   */
  async #planWithin(
    start: ClusterIndex,
    most: number,
  ): Promise<{ wanted: number; growth: Growth; end: ClusterIndex }> {
    const { filename, limits } = this.#file;
    const fileEnd = limits.blockDevice
      ? Math.floor((await this.#file.size()) / this.#geometry.clusterSize)
      : Infinity;
    const room = Math.min(most, fileEnd - start);
    let wanted = room < 1 ? 0 : this.#beforeMetadata(start, room);
    while (wanted > 0) {
      const growth = this.#growth.plan(start, wanted);
      const end = after(start, growth.tableClusters + growth.blocks.size + wanted);
      if (end <= fileEnd) return { wanted, growth, end };
      wanted -= end - fileEnd;
    }
    throw new CowherdError('ERR_COWHERD_NO_SPACE', `No space left on device '${filename}'`, {
      filename,
      offset: start * this.#geometry.clusterSize,
    });
  }

  async #extendFile(end: ClusterIndex): Promise<void> {
    const { filename } = this.#file;
    const bytes = end * this.#geometry.clusterSize;
    if (bytes > Number.MAX_SAFE_INTEGER) {
      throw new CowherdError('ERR_COWHERD_NO_SPACE', `'${filename}' cannot grow further`, {
        filename,
      });
    }
    const size = await this.#file.size();
    if (size >= bytes) return;
    // Reserved together, blocks cost a write to one of the clusters less than if each made its own.
    await this.#file.truncate(bytes, true);
    this.#noteGrowth();
  }
}

/** Ranges in order, those that touch as one. */
function joined(ranges: readonly CountedRange[]): readonly CountedRange[] {
  const all: CountedRange[] = [];
  for (const range of ranges) {
    const last = all.at(-1);
    if (last === undefined || last.cluster + last.length !== range.cluster) all.push(range);
    else all[all.length - 1] = { cluster: last.cluster, length: last.length + range.length };
  }
  return all;
}
