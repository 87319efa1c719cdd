/** What a check and its threads tell each other. */
import type { StorageHandle } from '../../../../storage/storage.js';
import type { Qcow2Header } from '../../layout/header.js';

/** What a thread is told at its start. */
export interface TableOrders {
  readonly file: StorageHandle;
  readonly header: Qcow2Header;
  /** Bytes. */
  readonly fileLength: number;
  /** The counts in the file, and the refcount blocks of which they are not known. */
  readonly stored: SharedArrayBuffer;
  readonly unreadable: ReadonlySet<number>;
}

/** Tables of one L1 table to be looked at, by their host offsets in bytes. */
export interface TableBatch {
  readonly hostOffsets: Float64Array;
  /** Whether the L1 table is the active one. */
  readonly active: boolean;
}

/** Numbers at the begin of what is said about a table, before its ranges: first cluster and count. */
export const TableField = {
  /** How many ranges follow; -1 if something is wrong with the table. */
  ranges: 0,
  allocated: 1,
  fragmented: 2,
  compressed: 3,
  /** 1 if some COPIED flag contradicts the counts in the file. */
  copiedSuspect: 4,
} as const;
/** How many there are of them. */
export const tableFields = 5;
