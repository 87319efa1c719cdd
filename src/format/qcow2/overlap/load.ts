/**
 * Finding all metadata of an image that is being opened for writing, so that no write hits them.
 * What a header, a snapshot or a table says is believed here: where two of them contradict each other,
 * both are kept from harm.
 */
import { type CowherdError, cannotOpen } from '../../../errors.js';
import { maxInactiveL1Bytes, maxProtectedClusters } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import { bitmapDirectoryPlace } from '../contents/bitmaps.js';
import { type Geometry, asHostOffset } from '../layout/geometry.js';
import type { Qcow2Header } from '../layout/header.js';
import { type OverlapMemory, OverlapCheck, allocateOverlapMemory } from './overlap.js';
import { type PointerTableMemory, PointerTable, pointerAt } from '../tables/pointer-table.js';
import { readSnapshots } from '../contents/snapshots.js';
import { type OverlapLevel, Structure, structuresOfLevel } from './levels.js';

/** Bytes of L1 tables that are read at once. */
const readBytes = 1 << 20;

/** Bytes of the file. */
interface Range {
  readonly offset: number;
  readonly length: number;
}

/** What the search goes by. */
export interface OverlapSource {
  readonly file: StorageFile;
  readonly header: Qcow2Header;
  readonly geometry: Geometry;
  /** The tables as they were loaded. */
  readonly l1: PointerTableMemory;
  readonly refcountTable: PointerTableMemory;
}

/**
 * Makes the memory in which metadata are looked up.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE if the snapshot table cannot be read, ERR_COWHERD_UNSUPPORTED if
 *   there are more metadata than a look-up can hold
 */
export async function loadOverlapMemory(
  source: OverlapSource,
  level: OverlapLevel,
): Promise<OverlapMemory> {
  const structures = structuresOfLevel[level];
  if (structures === 0) return allocateOverlapMemory(0, 0);
  const { file, header, geometry } = source;
  const { clusterSize } = geometry;
  const l1 = new PointerTable(source.l1);
  const refcountTable = new PointerTable(source.refcountTable);
  const ranges: [structure: number, ranges: Iterable<Range>, clusters: number][] = [];
  const add = (structure: number, found: readonly Range[]): void => {
    if ((structures & structure) === 0) return;
    // A range may begin in the midst of a cluster.
    const clusters = found.reduce((sum, { length }) => sum + geometry.clusters(length) + 1, 0);
    ranges.push([structure, found, clusters]);
  };
  const addTables = (structure: number, count: number, places: () => Iterable<number>): void => {
    if ((structures & structure) === 0) return;
    ranges.push([structure, rangesAt(places, clusterSize), count]);
  };
  add(Structure.header, [{ offset: 0, length: clusterSize }]);
  add(Structure.activeL1, [{ offset: l1.hostOffset, length: l1.length * 8 }]);
  const refcountTableBytes = refcountTable.length * 8;
  add(Structure.refcountTable, [{ offset: refcountTable.hostOffset, length: refcountTableBytes }]);
  const directory = bitmapDirectoryPlace(header);
  if (directory !== undefined) {
    add(Structure.bitmapDirectory, clipped([directory], await file.size()));
  }
  if (header.snapshotCount > 0) {
    const { lengthBytes, snapshots } = await readSnapshots(file, header);
    add(Structure.snapshotTable, [{ offset: header.snapshotsOffset, length: lengthBytes }]);
    const tables = inactiveL1Tables(snapshots, await file.size(), file.filename);
    add(Structure.inactiveL1, tables);
    if ((structures & Structure.inactiveL2) !== 0) {
      const places = await inactiveL2Tables(file, tables);
      addTables(Structure.inactiveL2, places.size, () => places);
    }
  }
  addTables(Structure.activeL2, l1.capacity + sharedTables(l1), () => l1.offsets());
  const blocks = countOf(refcountTable.offsets()) + blocksToCome(header, geometry);
  addTables(Structure.refcountBlock, blocks, () => refcountTable.offsets());
  const clusters = ranges.reduce((sum, [, , count]) => sum + count, 0);
  if (clusters > maxProtectedClusters) throw tooMany(file.filename);
  const memory = allocateOverlapMemory(structures, clusters);
  const check = new OverlapCheck(memory, file.filename, clusterSize, { l1, refcountTable });
  for (const [structure, found] of ranges) {
    for (const { offset, length } of found) check.protect(asHostOffset(offset), length, structure);
  }
  return memory;
}

/** L2 tables that snapshots share: each is copied before it changes, and has had two places then. */
function sharedTables(l1: PointerTable): number {
  let count = 0;
  for (let index = 0; index < l1.length; index++) {
    if (l1.offset(index) !== 0 && !l1.isCopied(index)) count++;
  }
  return count;
}

function* rangesAt(places: () => Iterable<number>, length: number): Generator<Range> {
  for (const offset of places()) yield { offset, length };
}

function countOf(values: Iterable<unknown>): number {
  let count = 0;
  for (const value of values) if (value !== undefined) count++;
  return count;
}

/** Refcount blocks that the disk will need once all of it is written, metadata included. */
function blocksToCome({ size }: Qcow2Header, { clusterSize, refcountsPerBlock }: Geometry): number {
  return Math.min(1 << 20, Math.ceil((size / clusterSize / refcountsPerBlock) * 1.25)) + 16;
}

/** Where the L1 tables of snapshots lie, as far as there is a file; what they share is there once. */
function inactiveL1Tables(
  snapshots: readonly { readonly l1Offset: number; readonly l1Entries: number }[],
  fileLength: number,
  filename: string,
): Range[] {
  const tables = snapshots.map(({ l1Offset, l1Entries }) => ({
    offset: l1Offset,
    length: l1Entries * 8,
  }));
  const merged = clipped(tables, fileLength);
  const bytes = merged.reduce((sum, { length }) => sum + length, 0);
  if (bytes > maxInactiveL1Bytes) throw tooMany(filename);
  return merged;
}

/** The union of ranges, as far as it lies in the file. */
function clipped(ranges: readonly Range[], fileLength: number): Range[] {
  const merged: { offset: number; length: number }[] = [];
  for (const { offset, length } of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const end = Math.min(offset + length, fileLength);
    if (end <= offset) continue;
    const last = merged.at(-1);
    if (last === undefined || offset > last.offset + last.length) {
      merged.push({ offset, length: end - offset });
    } else {
      last.length = Math.max(last.length, end - last.offset);
    }
  }
  return merged;
}

/** Host offsets of the L2 tables that L1 tables of snapshots point at. */
async function inactiveL2Tables(file: StorageFile, tables: readonly Range[]): Promise<Set<number>> {
  const places = new Set<number>();
  for (const { offset, length } of tables) {
    for (let done = 0; done < length; done += readBytes) {
      const bytes = new Uint8Array(Math.floor(Math.min(readBytes, length - done) / 8) * 8);
      await file.read(bytes, offset + done);
      for (const place of pointersIn(new DataView(bytes.buffer))) places.add(place);
      if (places.size > maxProtectedClusters) throw tooMany(file.filename);
    }
  }
  return places;
}

function* pointersIn(view: DataView): Generator<number> {
  for (let at = 0; at < view.byteLength; at += 8) {
    const place = pointerAt(view, at);
    if (place !== 0) yield place;
  }
}

function tooMany(filename: string): CowherdError {
  return cannotOpen(
    'ERR_COWHERD_UNSUPPORTED',
    filename,
    'there are too many metadata to keep writes off them; a lower overlap check is needed',
  );
}
