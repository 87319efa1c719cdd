/**
 * The references that an L1 table makes, to its L2 tables and through these to clusters, and the COPIED
 * flags that say how many others there are. Tables are read and written around the cache, while no queue
 * runs a request and nothing in the cache is dirty.
 */
import type { AbortSignalLike } from '../../../abort-signal.js';
import { type CowherdError, problemWith } from '../../../errors.js';
import { maxL1TableBytes, maxOffset } from '../../../limits.js';
import { type Snapshot, readSnapshots } from '../contents/snapshots.js';
import { type ClusterIndex, type HostOffset, asHostOffset } from '../layout/geometry.js';
import { ClusterKind } from '../layout/l2-entry.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { CorruptionError } from '../tables/corruption.js';
import { refcountWidth } from '../layout/refcount-width.js';
import { pointerAt } from '../tables/pointer-table.js';
import { type TablePointer, walkTables } from '../tables/table-walk.js';

const copiedHigh = 0x80000000;
const sectorSize = 512;

/**
 * How many references an L1 table makes to each cluster: one for each entry that points there, itself left
 * out.
 *
 * @throws CorruptionError for an entry that points where nothing can be
 */
export async function countReferences(
  metadata: Qcow2Metadata,
  l1: DataView,
  signal?: AbortSignalLike,
): Promise<PackedCounts> {
  const { file, geometry } = metadata;
  const { clusterSize } = geometry;
  const counts = new PackedCounts(geometry.clusters(await file.size()));
  for await (const { hostOffset, view } of walkTables(file, tablesOf(metadata, l1), clusterSize)) {
    signal?.throwIfAborted();
    counts.increment(geometry.clusterAt(hostOffset), 1);
    countEntries(metadata, view, hostOffset, counts);
  }
  return counts;
}

/** The entries of the active L1 table, as they are now. */
export function activeL1({ l1 }: Qcow2Metadata): DataView {
  return new DataView(l1.bytes.slice(0, l1.length * 8).buffer);
}

/** The entries of a snapshot's L1 table. @throws CowherdError ERR_COWHERD_CORRUPT for one where none can be */
export async function readSnapshotL1(
  { file, geometry }: Qcow2Metadata,
  { l1Offset, l1Entries }: Pick<Snapshot, 'l1Offset' | 'l1Entries'>,
): Promise<DataView> {
  const damage = (what: string): CowherdError => {
    const why = `the L1 table of the snapshot ${what}`;
    return problemWith('ERR_COWHERD_CORRUPT', file.filename, why, { offset: l1Offset });
  };
  if (l1Entries * 8 > maxL1TableBytes) throw damage('is too large');
  const isPlaced = l1Offset % geometry.clusterSize === 0 && l1Offset <= maxOffset - maxL1TableBytes;
  if (!isPlaced) throw damage('lies where none can be');
  const bytes = new Uint8Array(l1Entries * 8);
  await file.read(bytes, l1Offset);
  return new DataView(bytes.buffer);
}

/**
 * Every L2 table that the disk or a snapshot has, once, with the number of its first entry among those of all L1
 * tables, and how many entries these have.
 */
export async function allTables(
  metadata: Qcow2Metadata,
): Promise<{ readonly tables: readonly TablePointer[]; readonly entries: number }> {
  const { file, headerFile } = metadata;
  const found = new Map<HostOffset, TablePointer>();
  let entries = 0;
  const add = (view: DataView): void => {
    for (const { index, hostOffset } of tablesOf(metadata, view)) {
      if (!found.has(hostOffset)) found.set(hostOffset, { index: entries + index, hostOffset });
    }
    entries += view.byteLength / 8;
  };
  add(activeL1(metadata));
  const { snapshots } = await readSnapshots(file, headerFile.header);
  for (const snapshot of snapshots) add(await readSnapshotL1(metadata, snapshot));
  return { tables: [...found.values()], entries };
}

/** Counts what the entries of an L2 table refer to, neighbours at once. */
function countEntries(
  { entries, file, geometry }: Qcow2Metadata,
  view: DataView,
  tableOffset: HostOffset,
  counts: PackedCounts,
): void {
  const { clusterSize, l2EntrySize } = geometry;
  let first = 0;
  let end = 0;
  for (let at = 0; at < view.byteLength; at += l2EntrySize) {
    const kind = entries.kind(view, at);
    if (kind === ClusterKind.unallocated || kind === ClusterKind.zeroPlain) continue;
    if (kind === ClusterKind.compressed) {
      const offset = entries.compressedOffset(view, at);
      const cluster = geometry.clusterAt(offset);
      const last = geometry.clusterAt(asHostOffset(offset + entries.compressedSize(view, at) - 1));
      counts.increment(cluster, last - cluster + 1);
      continue;
    }
    const offset = entries.hostOffset(view, at);
    if (!geometry.canHoldCluster(offset)) {
      const problem = `an L2 entry points at no valid cluster (host offset ${offset}, in the L2 table at ${tableOffset})`;
      throw new CorruptionError(file.filename, problem, offset);
    }
    const cluster = offset / clusterSize;
    if (cluster !== end) {
      if (end > first) counts.increment(first, end - first);
      first = cluster;
    }
    end = cluster + 1;
  }
  if (end > first) counts.increment(first, end - first);
}

/** Which clusters are counted once, as the refcount blocks in the file have it: a bit for each. */
export async function readOnes(
  metadata: Qcow2Metadata,
): Promise<(cluster: ClusterIndex) => boolean> {
  const { file, geometry, refcounts } = metadata;
  const { clusterSize, refcountOrder, refcountsPerBlock } = geometry;
  const end = geometry.clusters(await file.size());
  const bits = new Uint8Array(Math.ceil(end / 8));
  const width = refcountWidth(refcountOrder, file.filename);
  const pointers = [...refcounts.table.entries()].filter(
    ({ index }) => index * refcountsPerBlock < end,
  );
  for await (const { index, view } of walkTables(file, pointers, clusterSize)) {
    const first = index * refcountsPerBlock;
    const counted = Math.min(refcountsPerBlock, end - first);
    for (let at = 0; at < counted; at++) {
      if (width.get(view, 0, at) === 1)
        bits[Math.floor((first + at) / 8)] |= 1 << ((first + at) % 8);
    }
  }
  return (cluster) => cluster < end && (bits[Math.floor(cluster / 8)] & (1 << (cluster % 8))) !== 0;
}

/**
 * Has the flags of the active tables say which clusters have exactly one reference, durably: those of the
 * L2 tables first, then those of the L1 table.
 */
export async function writeCopiedFlags(
  metadata: Qcow2Metadata,
  isOne: (cluster: ClusterIndex) => boolean,
): Promise<void> {
  const { file, flushOrder, geometry, l1, l2Cache } = metadata;
  const { clusterSize } = geometry;
  const view = new DataView(l1.bytes.slice(0, l1.length * 8).buffer);
  const changed = new Map<HostOffset, Uint8Array>();
  const write = async (): Promise<void> => {
    const writes = [...changed].map(([hostOffset, bytes]) => file.write(bytes, hostOffset));
    changed.clear();
    for (const end of await Promise.allSettled(writes)) {
      if (end.status === 'rejected') throw end.reason as Error;
    }
  };
  l2Cache.clear();
  for await (const table of walkTables(file, tablesOf(metadata, view), clusterSize)) {
    const [from, to] = setCopied(metadata, table.view, isOne);
    if (from === to) continue;
    const place = asHostOffset(table.hostOffset + from);
    metadata.overlap.check(place, to - from, 'an L2 table', Structure.activeL2);
    changed.set(place, new Uint8Array(table.view.buffer, from, to - from).slice());
    if (changed.size * clusterSize >= writtenAtOnce) await write();
  }
  await write();
  flushOrder.noteTable();
  for (let index = 0; index < l1.length; index++) {
    const offset = l1.offset(index);
    if (offset === 0) continue;
    const copied = isOne(geometry.clusterAt(offset));
    if (l1.isCopied(index) !== copied) l1.set(index, offset, copied);
  }
  await flushOrder.flushAll();
}

/** Bytes of tables that are under way at once. */
const writtenAtOnce = 4 * 1024 * 1024;

/** Sets the flags of a table. @returns the bytes from and to which it has changed, in whole sectors */
function setCopied(
  { entries, geometry }: Qcow2Metadata,
  view: DataView,
  isOne: (cluster: ClusterIndex) => boolean,
): [from: number, to: number] {
  let from = view.byteLength;
  let to = 0;
  for (let at = 0; at < view.byteLength; at += geometry.l2EntrySize) {
    const kind = entries.kind(view, at);
    if (kind !== ClusterKind.normal && kind !== ClusterKind.zeroAllocated) continue;
    const copied = isOne(geometry.clusterAt(entries.hostOffset(view, at)));
    if (entries.isCopied(view, at) === copied) continue;
    view.setUint32(at, (view.getUint32(at) ^ copiedHigh) >>> 0);
    from = Math.min(from, at);
    to = at + 1;
  }
  if (to === 0) return [0, 0];
  return [Math.floor(from / sectorSize) * sectorSize, Math.ceil(to / sectorSize) * sectorSize];
}

/** The L2 tables that an L1 table points at. @throws CorruptionError for one where none can be */
function* tablesOf({ file, geometry }: Qcow2Metadata, l1: DataView): Generator<TablePointer> {
  for (let index = 0; index < l1.byteLength / 8; index++) {
    const hostOffset = pointerAt(l1, index * 8);
    if (hostOffset === 0) continue;
    if (!geometry.canHoldCluster(hostOffset)) {
      const problem = `L1 entry ${index} points at no valid L2 table (host offset ${hostOffset})`;
      throw new CorruptionError(file.filename, problem, hostOffset);
    }
    yield { index, hostOffset };
  }
}
