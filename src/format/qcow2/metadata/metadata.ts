/**
 * One thread's access to the metadata of an open image: the shared tables and caches, the locks
 * over them, and the steps that need several of them, such as adding an L2 table.
 */
import type { Arena } from '../../../engine/space/arena.js';
import { type DirtyMapMemory, DirtyMap, allocateDirtyMap } from '../../../engine/dirty-map.js';
import { ClaimMarks } from '../../../engine/cache/claim-marks.js';
import { ControlWord } from '../../../engine/words/control-block.js';
import type { Node } from '../../../engine/queues/node.js';
import type { ControlWords } from '../../../engine/words/control-words.js';
import type { QueueCounters } from '../../../engine/queues/counters.js';
import { closeEpoch } from '../../../engine/queues/epochs.js';
import { runAlone } from '../../../engine/queues/gate.js';
import { Limbo, allocateLimbo } from '../../../engine/space/limbo.js';
import { LongMutex } from '../../../engine/words/long-mutex.js';
import type { Poison } from '../../../engine/words/poison.js';
import {
  type SliceCacheMemory,
  SliceCache,
  allocateSliceCache,
} from '../../../engine/cache/slice-cache.js';
import { maxBitmapBytes, maxBitmaps, maxOffset, maxRefcountTableBytes } from '../../../limits.js';
import { announced } from '../../../storage/filters/announced.js';
import type { StorageFile } from '../../../storage/storage.js';
import {
  type AllocatorMemory,
  type ClusterRun,
  Allocator,
  allocateAllocatorMemory,
} from '../refcount/allocator.js';
import { RefcountGrowth } from '../refcount/growth.js';
import { CorruptMark, CorruptionError } from '../tables/corruption.js';
import { FlushOrder } from './flush.js';
import {
  type GuestOffset,
  type HostOffset,
  Geometry,
  after,
  asClusterIndex,
  asHostOffset,
} from '../layout/geometry.js';
import { type Qcow2Header, Incompatible } from '../layout/header.js';
import { HeaderFile, allocateHeaderWords, refcountOrderOf } from '../tables/live-header.js';
import { L2EntryView } from '../layout/l2-entry.js';
import { ReadPlanner } from '../layout/plan.js';
import { type OverlapMemory, OverlapCheck, allocateOverlapMemory } from '../overlap/overlap.js';
import { loadOverlapMemory } from '../overlap/load.js';
import {
  type PointerTableMemory,
  PointerTable,
  allocatePointerTable,
} from '../tables/pointer-table.js';
import { Refcounts } from '../refcount/refcounts.js';
import type { CacheShares } from './cache-shares.js';
import { type OverlapLevel, Structure } from '../overlap/levels.js';

/** Entries that the L1 table of an image that is written to has room for, so that its disk can grow. */
const leastL1Room = 4096;
/** Bytes of address space kept for what bitmaps record, and the finest granularity that they have. */
const leastDirtyMapBytes = 64 * 1024 * 1024;
const finestGranularity = 512;

/** The shared memory of an open image; structured-cloneable. */
export interface Qcow2Memory {
  readonly header: Int32Array;
  readonly l1: PointerTableMemory;
  readonly l2: SliceCacheMemory;
  readonly claims: SharedArrayBuffer;
  readonly refcountTable: PointerTableMemory;
  readonly refcounts: SliceCacheMemory;
  readonly allocator: AllocatorMemory;
  readonly limbo: SharedArrayBuffer;
  readonly overlap: OverlapMemory;
  readonly dirtyMap: DirtyMapMemory;
  /** A byte for each bitmap by its place in the directory: 1 for those that are recorded. */
  readonly recordedBitmaps: SharedArrayBuffer;
  /** Whether the image is open for writing. */
  readonly writable: boolean;
}

/** The tables an image is opened with: the active ones, or those of an internal snapshot. */
export interface L1Place {
  readonly offset: HostOffset;
  readonly entries: number;
}

/**
 * Makes the shared memory of an image and reads its L1 and refcount tables into it.
 *
 * @param overlapLevel which metadata writes are kept off; undefined where nothing will be written
 */
export async function loadQcow2Memory(
  file: StorageFile,
  geometry: Geometry,
  header: Qcow2Header,
  l1Place: L1Place,
  caches: CacheShares,
  overlapLevel: OverlapLevel | undefined,
): Promise<Qcow2Memory> {
  const { sliceSize, refcountsPerSlice } = geometry;
  // A snapshot of a smaller disk has a shorter table; what it lacks reads as unallocated.
  const l1Entries = Math.max(l1Place.entries, geometry.l1Entries(header.size));
  const l2Slices =
    l1Place.offset === header.l1TableOffset
      ? Math.ceil(header.size / geometry.sliceReach)
      : l1Entries * geometry.slicesPerTable;
  const l2 = allocateSliceCache(caches.l2, sliceSize, l2Slices);
  const fileEnd = geometry.clusters(await file.size());
  const mostClusters = mostHostClusters(geometry, header, fileEnd);
  const refcountEntries = (header.refcountTableClusters * geometry.clusterSize) / 8;
  const isWritten = overlapLevel !== undefined;
  const refcountTable = allocatePointerTable(
    Math.max(refcountEntries, mostRefcountBlocks(geometry, mostClusters)),
  );
  const tableOffset = asHostOffset(header.refcountTableOffset);
  const tableFile = announced(file, { read: 'reftable_load' });
  const blocks = await loadTable(tableFile, refcountTable, tableOffset, refcountEntries);
  const mostBlocks = refcountTable.data.byteLength / 8;
  const memory: Qcow2Memory = {
    header: allocateHeaderWords(header),
    l1: allocatePointerTable(isWritten ? Math.max(2 * l1Entries, leastL1Room) : l1Entries),
    l2,
    claims: ClaimMarks.allocate(l2.slots, geometry.l2EntriesPerSlice),
    refcountTable,
    refcounts: allocateSliceCache(
      caches.refcounts,
      sliceSize,
      Math.ceil(mostClusters / refcountsPerSlice),
    ),
    allocator: allocateAllocatorMemory(geometry, fileEnd, blocks, mostBlocks),
    limbo: allocateLimbo(),
    overlap: allocateOverlapMemory(0, 0),
    dirtyMap: allocateDirtyMap(isWritten ? mostDirtyMapBytes(header) : 0),
    recordedBitmaps: new SharedArrayBuffer(isWritten ? maxBitmaps : 0),
    writable: isWritten,
  };
  const { l1 } = memory;
  await loadTable(file, l1, l1Place.offset, l1Place.entries);
  if (overlapLevel === undefined) return memory;
  const source = { file, header, geometry, l1, refcountTable };
  return { ...memory, overlap: await loadOverlapMemory(source, overlapLevel) };
}

/** Bytes that bits of the finest granularity take for twice the disk, or for a small one that has become large. */
function mostDirtyMapBytes({ size }: Qcow2Header): number {
  const twice = Math.ceil((2 * size) / finestGranularity / 8);
  return Math.min(maxBitmapBytes, Math.max(leastDirtyMapBytes, twice));
}

/** Entries of the longest refcount table that so many clusters may come to need, with counts of 64 bits. */
function mostRefcountBlocks({ clusterSize }: Geometry, clusters: number): number {
  // A table that grows gets half as long again as it has to be.
  const blocks = Math.ceil((clusters / (clusterSize / 8)) * 1.5);
  const perCluster = clusterSize / 8;
  const entries = Math.ceil(blocks / perCluster) * perCluster;
  return Math.min(maxRefcountTableBytes / 8, entries);
}

/** Clusters that the file of an image may come to have, and then some. */
function mostHostClusters(geometry: Geometry, header: Qcow2Header, fileEnd: number): number {
  return 2 * fileEnd + 4 * geometry.clusters(header.size) + 65536;
}

/** Reads a table into its memory. @returns its length up to the last entry that is not zero */
async function loadTable(
  file: StorageFile,
  memory: PointerTableMemory,
  hostOffset: HostOffset,
  entries: number,
): Promise<number> {
  const table = new PointerTable(memory);
  table.place(hostOffset, entries);
  // Where it cannot be, a check finds nothing.
  if (entries === 0 || hostOffset > maxOffset - entries * 8) return 0;
  await file.read(table.bytes.subarray(0, entries * 8), hostOffset);
  const words = new Int32Array(memory.data, 0, entries * 2);
  let last = words.length;
  while (last > 0 && words[last - 1] === 0) last--;
  return Math.ceil(last / 2);
}

/** The events of making an L2 table. */
const tableEvents = {
  read: 'l2_alloc_cow_read',
  write: 'l2_alloc_write',
  writeZeroes: 'l2_alloc_write',
} as const;

/** What every request of one thread works on. */
export class Qcow2Metadata {
  readonly geometry: Geometry;
  readonly entries: L2EntryView;
  readonly planner: ReadPlanner;
  /** The words of the control block. */
  readonly control: ControlWords;
  readonly poison: Poison;
  readonly l1: PointerTable;
  readonly l2Cache: SliceCache;
  readonly claims: ClaimMarks;
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly limbo: Limbo;
  /** Where what all queues of this thread share is counted. */
  readonly counters: QueueCounters;
  readonly flushOrder: FlushOrder;
  readonly headerFile: HeaderFile;
  /** What writes are kept off. */
  readonly overlap: OverlapCheck;
  readonly corruptMark: CorruptMark;
  /** What persistent bitmaps record. */
  readonly dirtyMap: DirtyMap;
  readonly recordedBitmaps: Uint8Array;
  readonly file: StorageFile;
  readonly #writable: boolean;
  readonly #node: Node;
  readonly #l1Mutex: LongMutex;

  constructor(
    file: StorageFile,
    dataFile: StorageFile | undefined,
    header: Qcow2Header,
    memory: Qcow2Memory,
    node: Node,
    counters: QueueCounters,
  ) {
    this.file = file;
    this.dirtyMap = new DirtyMap(memory.dirtyMap);
    this.recordedBitmaps = new Uint8Array(memory.recordedBitmaps);
    this.#writable = memory.writable;
    this.#node = node;
    this.counters = counters;
    const { control, poison, watchdog } = node;
    this.poison = poison;
    this.control = control;
    this.geometry = geometryOf(header, () => refcountOrderOf(memory.header));
    const externalData = (header.incompatibleFeatures & Incompatible.externalDataFile) !== 0;
    this.entries = new L2EntryView(this.geometry, externalData);
    this.planner = new ReadPlanner(this.geometry, this.entries);
    this.limbo = new Limbo(memory.limbo, this.poison);
    this.l1 = new PointerTable(memory.l1, this.poison);
    const locate = (key: number): number => this.#locateSlice(key);
    this.l2Cache = new SliceCache(memory.l2, locate, this.poison, undefined, watchdog);
    this.l2Cache.describe = (key, slot) => this.#describeSlice(key, slot);
    this.claims = new ClaimMarks(new Int32Array(memory.claims), memory.l2.slots);
    this.#l1Mutex = new LongMutex(control, ControlWord.l1Mutex);
    const refcountTable = new PointerTable(memory.refcountTable, this.poison);
    this.overlap = new OverlapCheck(
      memory.overlap,
      file.filename,
      this.geometry.clusterSize,
      { l1: this.l1, refcountTable },
      this.poison,
    );
    this.refcounts = new Refcounts(
      file,
      this.geometry,
      refcountTable,
      memory.refcounts,
      this.poison,
      watchdog,
    );
    this.headerFile = new HeaderFile(
      file,
      new LongMutex(control, ControlWord.headerMutex),
      header,
      memory.header,
      () => ({
        hostOffset: refcountTable.hostOffset,
        clusters: (refcountTable.length * 8) / this.geometry.clusterSize,
      }),
    );
    this.corruptMark = new CorruptMark(control, this.headerFile, file.filename, memory.writable);
    const flushMutex = new LongMutex(control, ControlWord.flushMutex);
    this.flushOrder = new FlushOrder({
      memory: control,
      counters,
      mutex: flushMutex,
      file,
      dataFile,
      l1: this.l1,
      l2Cache: this.l2Cache,
      refcountTable,
      refcountCache: this.refcounts.cache,
      lazyRefcounts: () => this.headerFile.isDirty,
      overlap: this.overlap,
      corruptMark: this.corruptMark,
    });
    this.l2Cache.thread = this.refcounts.cache.thread = control.thread;
    this.l2Cache.counters = counters;
    this.refcounts.cache.counters = counters;
    this.l2Cache.writeBack = () => this.flushOrder.flush();
    this.refcounts.cache.writeBack = () => this.flushOrder.writeRefcounts();
    this.allocator = new Allocator(
      file,
      this.geometry,
      this.refcounts,
      new LongMutex(control, ControlWord.refcountMutex),
      memory.allocator,
      this.overlap,
      () => {
        this.flushOrder.noteBeforeEntries();
      },
      new RefcountGrowth(file, this.geometry, this.refcounts, this.overlap, {
        move: (hostOffset, entries, blocks) =>
          flushMutex.runExclusive(() => this.#moveRefcountTable(hostOffset, entries, blocks)),
        settle: () => this.headerFile.settle(),
        betweenRounds: (section) =>
          flushMutex.runExclusive(() => {
            section();
            return Promise.resolve();
          }),
      }),
    );
  }

  /** Virtual size of the disk in bytes. */
  get diskSize(): number {
    return this.#node.size;
  }

  /** Runs a section while no queue of any thread runs a request, where one could change anything. */
  runAlone<Result>(section: () => Promise<Result>): Promise<Result> {
    return this.#writable ? runAlone(this.control, section) : section();
  }

  /**
   * Reserves consecutive host clusters; see `Allocator`.
   *
   * @param isAhead whether they are to be taken at once, and need not lie where QEMU would have them
   * @throws CorruptionError also if they were given up and wait to be freed: they are counted too low
   */
  async reserve(wanted: number, isAhead = true, follows?: number): Promise<ClusterRun> {
    await this.file.events?.hear('cluster_alloc');
    const { allocator } = this;
    const run = await (isAhead
      ? allocator.reserve(wanted)
      : allocator.reserveFirstFit(
          wanted,
          follows === undefined ? undefined : asClusterIndex(follows),
        ));
    if (!this.limbo.oldestTouches(run.cluster, run.length)) return run;
    const offset = this.geometry.startOf(run.cluster);
    const problem = `clusters that wait to be freed are counted as free (host offset ${offset})`;
    throw new CorruptionError(this.file.filename, problem, offset);
  }

  /** Key in the L2 cache of the slice that maps a guest offset in bytes. */
  sliceKey(guestOffset: GuestOffset): number {
    return Math.floor(guestOffset / this.geometry.sliceReach);
  }

  /** Whether a guest offset has an L2 table in this image. */
  hasTable(guestOffset: GuestOffset): boolean {
    const index = Math.floor(guestOffset / this.geometry.tableReach);
    return index < this.l1.length && this.l1.offset(index) !== 0;
  }

  /** The slice of a key, pinned; its L2 table must exist. */
  acquireSlice(key: number): Promise<number> {
    return this.l2Cache.acquire(key, (bytes) => this.#loadSlice(key, bytes));
  }

  /**
   * The slice that maps a guest offset, pinned, in an L2 table that belongs to this image alone;
   * the table is made, or copied from one that a snapshot holds, where need be.
   *
   * @param arena gives the host cluster of a new table
   * @param release receives the host offset in bytes of a table that was replaced, or not finished
   */
  async acquireWritableSlice(
    guestOffset: GuestOffset,
    arena: Arena,
    release: (hostOffset: HostOffset) => void,
  ): Promise<number> {
    const index = Math.floor(guestOffset / this.geometry.tableReach);
    if (!this.ownsTable(index)) {
      await this.#l1Mutex.runExclusive(() => this.#makeOwnTable(index, arena, release));
    }
    if (this.overlap.hasConflicts) {
      const { clusterSize } = this.geometry;
      this.overlap.check(this.l1.offset(index), clusterSize, 'an L2 table', Structure.activeL2);
    }
    return this.acquireSlice(this.sliceKey(guestOffset));
  }

  /** Whether an L1 entry points at an L2 table that no snapshot shares. */
  ownsTable(l1Index: number): boolean {
    return this.l1.isCopied(l1Index);
  }

  /** Ends the epoch in which references were removed. @returns what limbo has to wait for */
  closeEpoch(): { readonly epoch: number; readonly round: number } {
    return { epoch: closeEpoch(this.control), round: (this.flushOrder.begun + 1) | 0 };
  }

  /** A slice of an L2 table in words, and who changes entries of it. */
  #describeSlice(key: number, slot: number): string {
    const { sliceReach } = this.geometry;
    const from = key * sliceReach;
    const claimer = this.claims.lastClaimer(slot);
    const claimed =
      claimer === undefined
        ? ''
        : `, clusters of which ${this.control.nameQueue(claimer)} claimed last`;
    return `the L2 entries of guest bytes from ${from} to ${from + sliceReach - 1}${claimed}`;
  }

  async #makeOwnTable(
    index: number,
    arena: Arena,
    release: (hostOffset: HostOffset) => void,
  ): Promise<void> {
    if (this.ownsTable(index)) return;
    const { clusterSize } = this.geometry;
    const old = this.l1.offset(index);
    if (this.overlap.hasConflicts) {
      const place = after(this.l1.hostOffset, index * 8);
      this.overlap.check(place, 8, 'the L1 table', Structure.activeL1);
    }
    const { cluster, knownZero } = await arena.obtain();
    // Where the file is laid out as QEMU's, a table is counted on disk though other counts may be late.
    if (!arena.reservesAhead && this.headerFile.isDirty) await this.flushOrder.writeRefcounts();
    const hostOffset = this.geometry.startOf(asClusterIndex(cluster));
    const file = announced(this.file, tableEvents);
    try {
      if (old !== 0) {
        this.#checkTableOffset(index, old);
        // A shared table is never changed in place, so the disk has its current content.
        const content = new Uint8Array(clusterSize);
        await file.read(content, old);
        await file.write(content, hostOffset);
        this.flushOrder.noteTable();
      } else if (!knownZero) {
        await file.writeZeroes(hostOffset, clusterSize, false);
        this.flushOrder.noteTable();
      } else {
        await this.file.events?.hear(tableEvents.writeZeroes);
      }
    } catch (error) {
      release(hostOffset);
      throw error;
    }
    this.overlap.protect(hostOffset, clusterSize, Structure.activeL2);
    this.l1.set(index, hostOffset, true);
    if (old !== 0) release(old);
  }

  async #loadSlice(key: number, bytes: Uint8Array): Promise<void> {
    await announced(this.file, { read: 'l2_load' }).read(bytes, this.#locateSlice(key));
  }

  #locateSlice(key: number): HostOffset {
    const { slicesPerTable, sliceSize } = this.geometry;
    const index = Math.floor(key / slicesPerTable);
    const table = this.l1.offset(index);
    this.#checkTableOffset(index, table);
    return after(table, (key % slicesPerTable) * sliceSize);
  }

  #checkTableOffset(index: number, offset: HostOffset): void {
    if (offset !== 0 && this.geometry.canHoldCluster(offset)) return;
    const { filename } = this.file;
    const problem = `L1 entry ${index} points at no valid L2 table (host offset ${offset})`;
    throw new CorruptionError(filename, problem, offset);
  }

  async #moveRefcountTable(
    hostOffset: HostOffset,
    entries: number,
    blocks: ReadonlyMap<number, number>,
  ): Promise<void> {
    await this.flushOrder.settleRefcounts();
    const { table } = this.refcounts;
    const bytes = new Uint8Array(entries * 8);
    bytes.set(table.bytes.subarray(0, table.length * 8));
    const view = new DataView(bytes.buffer);
    for (const [block, blockOffset] of blocks) view.setBigUint64(block * 8, BigInt(blockOffset));
    await announced(this.file, { write: 'refblock_alloc_write_table' }).write(bytes, hostOffset);
    await this.file.flush();
    this.overlap.protect(hostOffset, bytes.length, Structure.refcountTable);
    const clusters = bytes.length / this.geometry.clusterSize;
    await this.file.events?.hear('refblock_alloc_switch_table');
    await this.headerFile.moveRefcountTable({ hostOffset, clusters });
    table.place(hostOffset, entries);
  }
}

/**
 * The geometry of an image with a header.
 *
 * @param refcountOrder how wide reference counts are now, where that can change
 */
export function geometryOf(header: Qcow2Header, refcountOrder?: () => number): Geometry {
  return new Geometry({
    clusterBits: header.clusterBits,
    get refcountOrder() {
      return refcountOrder === undefined ? header.refcountOrder : refcountOrder();
    },
    extendedL2: (header.incompatibleFeatures & Incompatible.extendedL2) !== 0,
  });
}
