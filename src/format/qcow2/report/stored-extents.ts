/** How a guest range is stored, as a stream of extents: the format's part of `map`. */
import { CowherdError } from '../../../errors.js';
import { TurnOfOthers } from '../../../turn-of-others.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { StoredExtent } from '../../driver.js';
import { asGuestOffset } from '../layout/geometry.js';
import { CorruptionError } from '../tables/corruption.js';
import { ClusterKind } from '../layout/l2-entry.js';
import { Run, RunKind } from '../layout/plan.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { type TablePointer, type WalkedTable, walkTables } from '../tables/table-walk.js';

/** What extents are found from. */
export interface ExtentSource {
  readonly metadata: Qcow2Metadata;
  readonly file: StorageFile;
  /** Where uncompressed guest data lie. */
  readonly dataFile: StorageFile;
  readonly externalData: boolean;
  /** Whether what lies in the file is not what the guest sees. */
  readonly isEncrypted: boolean;
  readonly signal: AbortSignal | undefined;
}

/** A stretch of guest bytes as the tables describe it. */
interface TableRun {
  readonly start: number;
  length: number;
  readonly kind: RunKind;
  readonly hasHost: boolean;
  readonly hostOffset: number;
}

/**
 * The extents of a guest range, ascending and covering it. The tables are read from the file, so
 * whatever changed them in memory has to be flushed before.
 */
export async function* storedExtents(
  source: ExtentSource,
  offset: number,
  length: number,
): AsyncGenerator<StoredExtent> {
  const holes = !source.isEncrypted && (await hasPreallocatedMetadata(source));
  const others = new TurnOfOthers();
  for await (const run of tableRuns(source, offset, offset + length)) {
    if (others.due) await others.take();
    source.signal?.throwIfAborted();
    if (holes && run.kind === RunKind.data) yield* splitByHoles(source, run);
    else yield extentOf(source, run, run.kind === RunKind.zero);
  }
}

/** Runs in table order, joined where one table's continue those of the one before. */
async function* tableRuns(
  source: ExtentSource,
  start: number,
  wantedEnd: number,
): AsyncGenerator<TableRun> {
  const { metadata, file } = source;
  const { geometry, planner } = metadata;
  let end = wantedEnd;
  let last: TableRun | undefined;
  let next = start;
  const unallocated = (upTo: number): Run => {
    const run = new Run();
    run.length = upTo - next;
    return run;
  };
  const joined: TableRun[] = [];
  const add = (run: Run): void => {
    if (last !== undefined && continues(last, run)) {
      last.length += run.length;
    } else {
      if (last !== undefined) joined.push(last);
      const { kind, hasHost, hostOffset, length } = run;
      last = { start: next, length, kind, hasHost, hostOffset };
    }
    next += run.length;
  };
  const run = new Run();
  const pointers = new TablePointers(source, start, end);
  let failure: unknown;
  try {
    for await (const table of walkTables(file, pointers.valid(), geometry.clusterSize)) {
      source.signal?.throwIfAborted();
      const tableStart = table.index * geometry.tableReach;
      if (tableStart > next) add(unallocated(Math.min(tableStart, end)));
      const tableEnd = Math.min(tableStart + geometry.tableReach, end);
      while (next < tableEnd && failure === undefined) {
        const slice = Math.floor((next - tableStart) / geometry.sliceReach);
        const from = asGuestOffset(next);
        planner.plan(table.view, slice * geometry.sliceSize, from, tableEnd - next, run);
        if (run.kind === RunKind.corrupt) failure = damagedEntry(source, table, next, run);
        else add(run);
      }
      if (failure !== undefined) break;
      yield* joined.splice(0);
    }
    failure ??= pointers.damaged();
  } catch (error) {
    failure = pointers.unreadable(error, next);
  }
  if (failure instanceof CowherdError && failure.offset !== undefined) end = failure.offset;
  if (next < end) add(unallocated(end));
  // What lies before a failure is known all the same.
  yield* joined;
  if (last !== undefined) yield last;
  if (failure !== undefined) throw failure as Error;
}

/** The L2 tables of a guest range, up to the first that cannot be one. */
class TablePointers {
  #damagedIndex: number | undefined;

  constructor(
    private readonly source: ExtentSource,
    private readonly start: number,
    private readonly end: number,
  ) {}

  *valid(): Generator<TablePointer> {
    const { geometry } = this.source.metadata;
    const { tableReach } = geometry;
    const first = Math.floor(this.start / tableReach);
    for (let index = first; index * tableReach < this.end; index++) {
      const hostOffset = this.source.metadata.l1.offset(index);
      if (hostOffset === 0) continue;
      if (!geometry.canHoldCluster(hostOffset)) {
        this.#damagedIndex = index;
        return;
      }
      yield { index, hostOffset };
    }
  }

  /** The error for the pointer at which the tables ended early. */
  damaged(): CorruptionError | undefined {
    const index = this.#damagedIndex;
    if (index === undefined) return undefined;
    const { metadata } = this.source;
    const hostOffset = metadata.l1.offset(index);
    return new CorruptionError(
      metadata.file.filename,
      `L1 entry ${index} points at no valid L2 table (host offset ${hostOffset})`,
      ...this.#stretchOf(
        index,
        `L2 table offset ${hex(hostOffset)} unaligned (L1 index: ${hex(index)})`,
      ),
    );
  }

  /** The error for the first table after guest offset `next`, which could not be read. */
  unreadable(error: unknown, next: number): unknown {
    if (!(error instanceof CowherdError)) return error;
    const { metadata } = this.source;
    let index = Math.floor(next / metadata.geometry.tableReach);
    while (metadata.l1.offset(index) === 0) index += 1;
    const [offset, { length }] = this.#stretchOf(index);
    const { filename } = error;
    return new CowherdError(error.code, error.message, { filename, offset, length, cause: error });
  }

  #stretchOf(index: number, damage?: string): [number, { length: number; damage?: string }] {
    const { tableReach } = this.source.metadata.geometry;
    const offset = Math.max(this.start, index * tableReach);
    const length = Math.min(this.end, (index + 1) * tableReach) - offset;
    return [offset, { length, ...(damage !== undefined && { damage }) }];
  }
}

/** Bytes of a table that QEMU looks at as one, by default. */
const qemuSliceBytes = 65536;

/** The error for an entry of a table that contradicts the format. */
function damagedEntry(
  { metadata, file }: ExtentSource,
  table: WalkedTable,
  offset: number,
  run: Run,
): CorruptionError {
  const { geometry, entries } = metadata;
  const { clusterSize, l2EntrySize } = geometry;
  const index = Math.floor((offset % geometry.tableReach) / clusterSize);
  const kind = entries.kind(table.view, index * l2EntrySize);
  const host = entries.hostOffset(table.view, index * l2EntrySize);
  const known = run.hasHost && kind !== ClusterKind.compressed && host % clusterSize !== 0;
  const zero = kind === ClusterKind.zeroAllocated;
  const unaligned = `${zero ? 'Preallocated zero cluster' : 'Cluster allocation'} offset ${hex(host)} unaligned`;
  const place = `(L2 offset: ${hex(table.hostOffset)}, L2 index: ${hex(index % (qemuSliceBytes / l2EntrySize))})`;
  return new CorruptionError(
    file.filename,
    `the L2 entry of guest offset ${offset} is invalid`,
    offset,
    {
      // Its neighbours are looked at each by itself.
      length: Math.min(run.length, clusterSize - geometry.within(offset)),
      damage: `${known ? unaligned : 'Invalid cluster entry found'} ${place}`,
    },
  );
}

function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

/** Whether a run is stored as the last one's continuation; compressed clusters only look alike. */
function continues(last: TableRun, run: Run): boolean {
  if (last.kind !== run.kind || last.hasHost !== run.hasHost) return false;
  if (run.kind === RunKind.compressed) return true;
  return !run.hasHost || last.hostOffset + last.length === run.hostOffset;
}

async function* splitByHoles(source: ExtentSource, run: TableRun): AsyncGenerator<StoredExtent> {
  for (let done = 0; done < run.length;) {
    const status = await source.dataFile.status(run.hostOffset + done, run.length - done);
    const length = Math.min(status.length, run.length - done);
    const part = { ...run, start: run.start + done, length, hostOffset: run.hostOffset + done };
    yield extentOf(source, part, !status.data);
    done += length;
  }
}

function extentOf(source: ExtentSource, run: TableRun, zero: boolean): StoredExtent {
  const { start, length, kind, hasHost, hostOffset } = run;
  const compressed = kind === RunKind.compressed;
  const extent = {
    start,
    length,
    present: kind !== RunKind.unallocated,
    zero,
    data: kind === RunKind.data || compressed,
    compressed,
  };
  if (!hasHost || compressed || source.isEncrypted) return extent;
  return { ...extent, offset: hostOffset, filename: source.dataFile.filename };
}

/**
 * Whether far more clusters are counted than the host has allocated, so that data clusters may be
 * holes. The measure is QEMU's: a tenth more, and at least two clusters.
 */
async function hasPreallocatedMetadata(source: ExtentSource): Promise<boolean> {
  const { metadata, file, externalData } = source;
  if (externalData || !file.limits.detectsHoles) return false;
  const { clusterSize, refcountsPerBlock } = metadata.geometry;
  const allocated = Math.floor(((await file.allocatedSize()) ?? Infinity) / clusterSize);
  const threshold = Math.max(Math.floor((allocated * 10) / 9), allocated + 2);
  const clusters = Math.ceil((await file.size()) / clusterSize);
  if (clusters < threshold) return false;
  const { table } = metadata.refcounts;
  const pointers: TablePointer[] = [];
  for (let block = 0; block * refcountsPerBlock < clusters && block < table.length; block++) {
    const hostOffset = table.offset(block);
    if (hostOffset !== 0) pointers.push({ index: block, hostOffset });
  }
  let counted = 0;
  for await (const block of walkTables(file, pointers, clusterSize)) {
    source.signal?.throwIfAborted();
    const end = Math.min(refcountsPerBlock, clusters - block.index * refcountsPerBlock);
    counted += metadata.refcounts.countUsed(block.view, end);
    if (counted >= threshold) return true;
  }
  return false;
}
