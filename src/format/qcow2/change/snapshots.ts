/**
 * Internal snapshots of an open image, taken, gone back to and given up while no queue runs a request.
 *
 * References are counted before anything makes them and until nothing does, and the header changes in one
 * sector: whatever is cut off leaves a snapshot whole or absent, and the disk as it was or as it was then.
 *
 *     create  counts raised ▏ COPIED flags cleared ▏ L1 table and entry written ▏ header
 *     apply   counts raised ▏ L1 table written ▏ header (or the one sector of the table) ▏ counts lowered
 *     delete  table without the entry written ▏ header ▏ counts lowered ▏ COPIED flags set
 */
import type { AbortSignalLike } from '../../../abort-signal.js';
import { CowherdError, problemWith } from '../../../errors.js';
import { maxSnapshotTableBytes, maxSnapshots } from '../../../limits.js';
import type { DiskSnapshots, NewSnapshotFacts, SnapshotChoice } from '../../driver.js';
import type { SnapshotFacts } from '../../facts.js';
import { readBitmaps } from '../contents/bitmaps.js';
import {
  type Snapshot,
  type StoredSnapshot,
  describeChoice,
  encodeSnapshots,
  findSnapshot,
  isComplete,
  newEntry,
  readSnapshots,
  snapshotFacts,
} from '../contents/snapshots.js';
import { type HostOffset, asHostOffset } from '../layout/geometry.js';
import { Incompatible } from '../layout/header.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import type { ClusterRun } from '../refcount/allocator.js';
import type { PackedCounts } from '../refcount/packed-counts.js';
import { pointerAt } from '../tables/pointer-table.js';
import { type ExclusiveChanges, countsOf, lowerCounts } from './exclusive.js';
import {
  activeL1,
  countReferences,
  readOnes,
  readSnapshotL1,
  writeCopiedFlags,
} from './references.js';

const sectorSize = 512;
/** Bytes of a name: QEMU's tools have no room for more. */
const mostNameBytes = 255;
const copiedHigh = 0x80000000;

/** See the file's comment. */
export class Qcow2Snapshots implements DiskSnapshots {
  readonly #metadata: Qcow2Metadata;
  readonly #changes: ExclusiveChanges;

  constructor(metadata: Qcow2Metadata, changes: ExclusiveChanges) {
    this.#metadata = metadata;
    this.#changes = changes;
  }

  async list(): Promise<readonly SnapshotFacts[]> {
    const { snapshots } = await this.#read();
    return snapshots.map(snapshotFacts);
  }

  async create(facts: NewSnapshotFacts, signal?: AbortSignalLike): Promise<SnapshotFacts> {
    const { geometry, headerFile, l1 } = this.#metadata;
    const { snapshots } = await this.#read();
    if (Buffer.byteLength(facts.name) > mostNameBytes) {
      throw this.#refusal(`a snapshot's name has at most ${mostNameBytes} bytes`);
    }
    if (snapshots.length >= maxSnapshots) throw this.#refusal('File too large');
    const id = String(Math.max(0, ...snapshots.map((each) => numberOf(each.id))) + 1);
    return this.#within(async () => {
      const now = activeL1(this.#metadata);
      const counts = await countReferences(this.#metadata, now, signal);
      await this.#raise(counts);
      let table: ClusterRun | undefined;
      try {
        await writeCopiedFlags(this.#metadata, () => false);
        table = await this.#store(withoutCopied(now));
        const entry = newEntry({
          ...facts,
          id,
          l1Offset: geometry.startOf(table.cluster),
          l1Entries: l1.length,
          size: headerFile.header.size,
        });
        await this.#writeTable([...snapshots.map(({ stored }) => stored), entry]);
      } catch (error) {
        await this.#changes.later(...this.#takeBack(counts, table));
        throw error;
      }
      this.#protect(now, geometry.startOf(table.cluster), inactive);
      return snapshotFacts((await this.#read()).snapshots.at(-1)!);
    });
  }

  async apply(choice: SnapshotChoice, signal?: AbortSignalLike): Promise<number> {
    const { allocator, geometry, headerFile, l1, l2Cache } = this.#metadata;
    const { header } = headerFile;
    const bitmaps = await readBitmaps(this.#metadata.file, header);
    if (bitmaps !== undefined && bitmaps.bitmaps.length > 0) {
      throw this.#refusal('Device has active dirty bitmaps');
    }
    const { snapshots } = await this.#read();
    const snapshot = this.#find(snapshots, choice);
    if (header.version === 2 && snapshot.size !== header.size) {
      throw this.#refusal("Can't resize a v2 image which has snapshots");
    }
    const entries = Math.max(l1.length, snapshot.l1Entries, geometry.l1Entries(snapshot.size));
    if (entries > l1.capacity) {
      const why = `Failed to grow the L1 table: an open image has room for ${l1.capacity} entries`;
      throw this.#refusal(why);
    }
    const then = await this.#readL1(snapshot);
    return this.#within(async () => {
      const raised = await countReferences(this.#metadata, then, signal);
      const lowered = await countReferences(this.#metadata, activeL1(this.#metadata), signal);
      await allocator.checkAll(lowered, -1);
      await this.#raise(raised);
      const bytes = new Uint8Array(entries * 8);
      bytes.set(withoutCopied(then));
      const isOneWrite = bytes.length === l1.length * 8 && bytes.length <= sectorSize;
      l2Cache.clear();
      try {
        if (isOneWrite && snapshot.size === header.size) await this.#overwriteL1(bytes);
        else await this.#moveL1(bytes, snapshot.size);
      } catch (error) {
        await this.#changes.later(...this.#takeBack(raised));
        throw error;
      }
      this.#protect(activeL1(this.#metadata), l1.hostOffset, active);
      await this.#changes.later(
        () => this.#lower(lowered),
        () => this.#settleFlags(),
      );
      return snapshot.size;
    });
  }

  async delete(choice: SnapshotChoice, signal?: AbortSignalLike): Promise<void> {
    const { allocator, geometry } = this.#metadata;
    const { snapshots } = await this.#read();
    const snapshot = this.#find(snapshots, choice);
    const table = await this.#readL1(snapshot);
    return this.#within(async () => {
      const counts = await countReferences(this.#metadata, table, signal);
      const place = asHostOffset(snapshot.l1Offset);
      counts.increment(geometry.clusterAt(place), geometry.clusters(table.byteLength));
      await allocator.checkAll(counts, -1);
      const left = snapshots.filter((each) => each !== snapshot);
      await this.#writeTable(left.map(({ stored }) => stored));
      await this.#changes.later(
        () => this.#release(table, place, left),
        () => this.#lower(counts),
        () => this.#settleFlags(),
      );
    });
  }

  /** Has every entry say what version 3 asks of it; the image has been made ready for changes. */
  async complete(): Promise<void> {
    const { snapshots } = await this.#read();
    if (snapshots.every(({ stored }) => isComplete(stored))) return;
    await this.#writeTable(snapshots.map(({ stored }) => stored));
  }

  /** Runs a change, between what makes the image ready for it and what ends it. */
  #within<Result>(change: () => Promise<Result>): Promise<Result> {
    const { header } = this.#metadata.headerFile;
    if ((header.incompatibleFeatures & Incompatible.externalDataFile) !== 0) {
      throw this.#refusal('Operation not supported');
    }
    return this.#changes.run(change);
  }

  async #read(): Promise<{
    readonly snapshots: readonly Snapshot[];
    readonly lengthBytes: number;
  }> {
    const { file, headerFile } = this.#metadata;
    return readSnapshots(file, headerFile.header);
  }

  #find(snapshots: readonly Snapshot[], choice: SnapshotChoice): Snapshot {
    const snapshot = findSnapshot(snapshots, choice);
    if (snapshot !== undefined) return snapshot;
    const { filename } = this.#metadata.file;
    throw new CowherdError(
      'ERR_COWHERD_NOT_FOUND',
      `Can't find snapshot '${describeChoice(choice)}' in '${filename}'`,
      { operation: 'load snapshot', why: 'snapshot not found', filename },
    );
  }

  #refusal(why: string): CowherdError {
    return problemWith('ERR_COWHERD_UNSUPPORTED', this.#metadata.file.filename, why);
  }

  #readL1(snapshot: Snapshot): Promise<DataView> {
    return readSnapshotL1(this.#metadata, snapshot);
  }

  /** Counts references that are about to be made, durably. */
  async #raise(counts: PackedCounts): Promise<void> {
    const { allocator, flushOrder } = this.#metadata;
    await allocator.changeAll(counts, 1);
    try {
      await flushOrder.writeRefcounts();
    } catch (error) {
      await this.#changes.later(() => this.#lowerAgain(counts));
      throw error;
    }
  }

  /** Counts references less that were counted for something that nothing has come to point at. */
  async #lowerAgain(counts: PackedCounts): Promise<void> {
    await this.#metadata.allocator.changeAll(counts, -1);
  }

  #lower(counts: PackedCounts): Promise<void> {
    return lowerCounts(this.#metadata, counts);
  }

  /** Gives up the clusters of a table that nothing points at any more. */
  async #free(hostOffset: HostOffset, lengthBytes: number): Promise<void> {
    const { geometry } = this.#metadata;
    const cluster = geometry.clusterAt(hostOffset);
    await this.#lower(countsOf({ cluster, length: geometry.clusters(lengthBytes) }));
  }

  /** Writes a table to clusters of its own, durably, as their counts are. */
  async #store(bytes: Uint8Array): Promise<ClusterRun> {
    const { allocator, file, flushOrder, geometry } = this.#metadata;
    const run = await allocator.reserveWhole(Math.max(1, geometry.clusters(bytes.length)));
    const whole = new Uint8Array(run.length * geometry.clusterSize);
    whole.set(bytes);
    try {
      await file.write(whole, geometry.startOf(run.cluster));
      await flushOrder.flushAll();
      await file.flush();
    } catch (error) {
      await this.#changes.later(() => this.#lowerAgain(countsOf(run)));
      throw error;
    }
    return run;
  }

  /** Has the header point at a table of these snapshots, and gives up the one before. */
  async #writeTable(snapshots: readonly StoredSnapshot[]): Promise<void> {
    const { geometry, headerFile, overlap } = this.#metadata;
    const { snapshotsOffset, size } = headerFile.header;
    const { lengthBytes } = await this.#read();
    const bytes = encodeSnapshots(snapshots, size);
    if (bytes.length > maxSnapshotTableBytes) throw this.#refusal('File too large');
    const run = snapshots.length === 0 ? undefined : await this.#store(bytes);
    const place = run === undefined ? asHostOffset(0) : geometry.startOf(run.cluster);
    try {
      await headerFile.changeDisk({ snapshotsOffset: place, snapshotCount: snapshots.length });
    } catch (error) {
      await this.#changes.later(() => headerFile.settle());
      if (run !== undefined) await this.#changes.later(() => this.#lowerAgain(countsOf(run)));
      throw error;
    }
    overlap.protect(place, bytes.length, Structure.snapshotTable);
    const old = asHostOffset(snapshotsOffset);
    overlap.release(old, lengthBytes, Structure.snapshotTable);
    await this.#changes.later(() => this.#free(old, lengthBytes));
  }

  /** Puts other entries in the place of the active L1 table, which takes one sector. */
  async #overwriteL1(bytes: Uint8Array): Promise<void> {
    const { file, flushOrder, l1, overlap } = this.#metadata;
    const { hostOffset } = l1;
    overlap.check(hostOffset, bytes.length, 'the L1 table', Structure.activeL1);
    try {
      await file.write(bytes, hostOffset);
      await file.flush();
    } catch (error) {
      // Which of the two the file shows is not known.
      await this.#changes.later(async () => {
        l1.set(0, l1.offset(0), l1.isCopied(0));
        await flushOrder.flushAll();
      });
      throw error;
    }
    l1.replace(hostOffset, bytes);
  }

  /** Has the header point at another L1 table, of a disk of a size in bytes; the clusters of the old one are given up. */
  async #moveL1(bytes: Uint8Array, size: number): Promise<void> {
    const { geometry, headerFile, l1 } = this.#metadata;
    const old = { offset: l1.hostOffset, length: l1.length * 8 };
    const run = await this.#store(bytes);
    const hostOffset = geometry.startOf(run.cluster);
    try {
      await headerFile.changeDisk({ size, l1Offset: hostOffset, l1Entries: bytes.length / 8 });
    } catch (error) {
      await this.#changes.later(
        () => headerFile.settle(),
        () => this.#lowerAgain(countsOf(run)),
      );
      throw error;
    }
    l1.replace(hostOffset, bytes);
    await this.#changes.later(() => this.#free(old.offset, old.length));
  }

  /** Has the COPIED flags say what the counts do. */
  async #settleFlags(): Promise<void> {
    await this.#metadata.flushOrder.flushAll();
    await writeCopiedFlags(this.#metadata, await readOnes(this.#metadata));
  }

  /** The steps that take back what was counted for references that were not made, and a table that was for them. */
  #takeBack(counts: PackedCounts, table?: ClusterRun): readonly (() => Promise<void>)[] {
    return [
      () => this.#lowerAgain(counts),
      () => (table === undefined ? Promise.resolve() : this.#lowerAgain(countsOf(table))),
      () => this.#settleFlags(),
    ];
  }

  /** Keeps writes off an L1 table and its L2 tables. */
  #protect(l1: DataView, hostOffset: HostOffset, structures: Structures): void {
    const { geometry, overlap } = this.#metadata;
    overlap.protect(hostOffset, l1.byteLength, structures.l1);
    for (const table of pointersOf(l1)) {
      overlap.protect(table, geometry.clusterSize, structures.l2);
    }
  }

  /** Lets the tables of a snapshot that has gone be written over, but for those that others have. */
  async #release(l1: DataView, hostOffset: HostOffset, left: readonly Snapshot[]): Promise<void> {
    const { geometry, overlap } = this.#metadata;
    overlap.release(hostOffset, l1.byteLength, inactive.l1);
    for (const table of pointersOf(l1)) overlap.release(table, geometry.clusterSize, inactive.l2);
    if (!overlap.tracks(inactive.l2)) return;
    for (const snapshot of left) {
      this.#protect(await this.#readL1(snapshot), asHostOffset(snapshot.l1Offset), inactive);
    }
  }
}

/** The structures that an L1 table and its L2 tables are. */
interface Structures {
  readonly l1: number;
  readonly l2: number;
}

const active: Structures = { l1: Structure.activeL1, l2: Structure.activeL2 };
const inactive: Structures = { l1: Structure.inactiveL1, l2: Structure.inactiveL2 };

function* pointersOf(l1: DataView): Generator<HostOffset> {
  for (let at = 0; at < l1.byteLength; at += 8) {
    const hostOffset = pointerAt(l1, at);
    if (hostOffset !== 0) yield hostOffset;
  }
}

/** The entries of an L1 table whose L2 tables have several references. */
function withoutCopied({ buffer, byteLength }: DataView): Uint8Array {
  const bytes = new Uint8Array(buffer.slice(0, byteLength));
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < byteLength; at += 8) {
    view.setUint32(at, (view.getUint32(at) & ~copiedHigh) >>> 0);
  }
  return bytes;
}

/** The number that an id begins with, 0 if with none. */
function numberOf(id: string): number {
  return Number(/^\s*\d+/.exec(id)?.[0] ?? 0);
}
