/** Walking all tables of an extent around the cache, many at a time, as they stand in the file. */
import type { StorageFile } from '../../storage/storage.js';
import { type TablePiece, tablePieces } from '../mapped/table-pieces.js';
import type { GrainTables } from './grain-tables.js';

/** Bytes of tables that are one run at most, so that a walk can be stopped. */
const mostRunBytes = 16 * 1024 * 1024;

/** Grain tables that follow one another in the file, as do their entries of the directory. */
export interface TableRun {
  /** The directory's entry of the first one. */
  readonly index: number;
  readonly count: number;
  /** Host offset of the first one in bytes; NaN for an entry that is invalid. */
  readonly offset: number;
}

/** The tables of an extent, in the order of the directory. What the file does not have of it names none. */
export async function* tableRuns(file: StorageFile, tables: GrainTables): AsyncGenerator<TableRun> {
  const { extent, entryBytes } = tables;
  const { directoryOffset, directoryEntries, tableEntries } = extent;
  const tableBytes = tableEntries * entryBytes;
  const there = Math.floor(((await file.size()) - directoryOffset) / entryBytes);
  const length = Math.max(0, Math.min(directoryEntries, there)) * entryBytes;
  let run: TableRun | undefined;
  for await (const { at, view } of tablePieces(file, directoryOffset, length)) {
    for (let within = 0; within < view.byteLength / entryBytes; within += 1) {
      const offset = tables.tableAt(view, within);
      if (offset === 0) continue;
      const index = at / entryBytes + within;
      if (run !== undefined) {
        const bytes: number = run.count * tableBytes;
        const follows = index === run.index + run.count && offset === run.offset + bytes;
        if (follows && bytes + tableBytes <= mostRunBytes) {
          run = { ...run, count: run.count + 1 };
          continue;
        }
        yield run;
      }
      run = { index, count: 1, offset };
    }
  }
  if (run !== undefined) yield run;
}

/** The entries of a run's tables, piece by piece; holes of the file name no grains and are left out. */
export function entriesOf(
  file: StorageFile,
  { extent, entryBytes }: GrainTables,
  { offset, count }: TableRun,
): AsyncGenerator<TablePiece> {
  const length = count * extent.tableEntries * entryBytes;
  return tablePieces(file, offset, length, { skipsHoles: true });
}
