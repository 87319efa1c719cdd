/** How a guest range is stored, as a stream of extents: the format's part of `map`. */
import { CowherdError } from '../../errors.js';
import type { StorageFile } from '../../storage/storage.js';
import type { StoredExtent } from '../driver.js';
import { Run, RunKind } from './mapping.js';
import type { Qcow2Metadata } from './metadata.js';
import { corruptEntry } from './reader.js';
import { type TablePointer, walkTables } from './table-walk.js';

/** What extents are found from. */
export interface ExtentSource {
  readonly metadata: Qcow2Metadata;
  readonly file: StorageFile;
  /** Where uncompressed guest data lie. */
  readonly dataFile: StorageFile;
  readonly externalData: boolean;
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
  const holes = await hasPreallocatedMetadata(source);
  for await (const run of tableRuns(source, offset, offset + length)) {
    source.signal?.throwIfAborted();
    if (holes && run.kind === RunKind.data) yield* splitByHoles(source, run);
    else yield extentOf(source, run, run.kind === RunKind.zero);
  }
}

/** Runs in table order, joined where one table's continue those of the one before. */
async function* tableRuns(
  source: ExtentSource,
  start: number,
  end: number,
): AsyncGenerator<TableRun> {
  const { metadata, file } = source;
  const { geometry, planner } = metadata;
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
  for await (const table of walkTables(
    file,
    tablePointers(metadata, start, end),
    geometry.clusterSize,
  )) {
    const tableStart = table.index * geometry.tableReach;
    if (tableStart > next) add(unallocated(Math.min(tableStart, end)));
    const tableEnd = Math.min(tableStart + geometry.tableReach, end);
    while (next < tableEnd) {
      const slice = Math.floor((next - tableStart) / geometry.sliceReach);
      planner.plan(table.view, slice * geometry.sliceSize, next, tableEnd - next, run);
      if (run.kind === RunKind.corrupt) throw corruptEntry(source, next);
      add(run);
    }
    yield* joined.splice(0);
  }
  if (next < end) add(unallocated(end));
  yield* joined;
  if (last !== undefined) yield last;
}

function* tablePointers(
  metadata: Qcow2Metadata,
  start: number,
  end: number,
): Generator<TablePointer> {
  const { tableReach, clusterSize } = metadata.geometry;
  const { filename } = metadata.file;
  for (let index = Math.floor(start / tableReach); index * tableReach < end; index++) {
    const hostOffset = metadata.l1.offset(index);
    if (hostOffset === 0) continue;
    if (hostOffset % clusterSize !== 0) {
      throw new CowherdError(
        'ERR_COWHERD_CORRUPT',
        `'${filename}': L1 entry ${index} points at no valid L2 table (host offset ${hostOffset})`,
        { filename, offset: hostOffset },
      );
    }
    yield { index, hostOffset };
  }
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
  if (!hasHost || compressed) return extent;
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
    const end = Math.min(refcountsPerBlock, clusters - block.index * refcountsPerBlock);
    counted += metadata.refcounts.countUsed(block.view, end);
    if (counted >= threshold) return true;
  }
  return false;
}
