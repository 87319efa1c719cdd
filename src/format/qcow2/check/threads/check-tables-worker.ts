/**
 * A thread of a check: reads L2 tables and says which clusters each of them refers to. Of a table in
 * which anything is wrong it says only that, and whoever asked looks at that table itself.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { attachStorageFile } from '../../../../storage/registry.js';
import type { StorageFile } from '../../../../storage/storage.js';
import { asHostOffset } from '../../layout/geometry.js';
import { L2Checker, type L2Findings } from '../tables/l2-table.js';
import { CheckedImage } from '../tables/checked-image.js';
import {
  type TableBatch,
  TableField,
  type TableOrders,
  tableFields,
} from './check-tables-messages.js';
import { SharedOnes } from '../../refcount/packed-counts.js';
import { walkTables } from '../../tables/table-walk.js';

/** Stands for the findings of a table in which nothing is wrong. */
class NoFindings implements L2Findings {
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;
  isWrong = false;

  reset(): void {
    this.allocatedClusters = 0;
    this.fragmentedClusters = 0;
    this.compressedClusters = 0;
    this.isWrong = false;
  }

  corruption(): void {
    this.isWrong = true;
  }

  repair(): void {
    this.isWrong = true;
  }
}

/** Looks at tables one after the other and writes down what they refer to. */
class TableReader {
  readonly #image: CheckedImage;
  readonly #fileLength: number;
  readonly #findings = new NoFindings();
  /** For tables of the active L1 table, and for those of snapshots. */
  readonly #checkers: { readonly active: L2Checker; readonly inactive: L2Checker };
  /** Of tables that were looked at, for the next ones. */
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  /** What was found, a record after the other. */
  #records = new Float64Array(1024);
  #end = 0;
  /** Where the ranges of the current table begin. */
  #ranges = 0;

  constructor({ header, fileLength, stored, unreadable }: TableOrders, file: StorageFile) {
    const image = new CheckedImage(file, header);
    this.#image = image;
    this.#fileLength = fileLength;
    const { geometry, entries, externalData } = image;
    const fileClusters = geometry.clusters(fileLength);
    const context = {
      geometry,
      entries,
      externalData,
      stored: new SharedOnes(stored, fileClusters),
      isKnown: (cluster: number) =>
        !unreadable.has(Math.floor(cluster / geometry.refcountsPerBlock)),
      fileClusters,
      findings: this.#findings,
      droppable: undefined,
      count: (hostOffset: number, length: number) => {
        this.#count(hostOffset, length);
      },
    };
    this.#checkers = {
      active: new L2Checker({ ...context, active: true }),
      inactive: new L2Checker({ ...context, active: false }),
    };
  }

  /** @returns the records of the tables, in their order */
  async read({ hostOffsets, active }: TableBatch): Promise<Float64Array<ArrayBuffer>> {
    const { file, geometry } = this.#image;
    const checker = active ? this.#checkers.active : this.#checkers.inactive;
    const pointers = Array.from(hostOffsets, (hostOffset, index) => ({
      index,
      hostOffset: asHostOffset(hostOffset),
    }));
    this.#end = 0;
    for await (const table of walkTables(file, pointers, geometry.clusterSize, this.#buffers)) {
      this.#check(checker, table.view, table.hostOffset);
    }
    return this.#records.slice(0, this.#end);
  }

  #check(checker: L2Checker, view: DataView, hostOffset: number): void {
    const findings = this.#findings;
    const at = this.#end;
    this.#reserve(tableFields + 2 * this.#image.geometry.l2EntriesPerTable);
    this.#ranges = at + tableFields;
    this.#end = this.#ranges;
    findings.reset();
    checker.check(view, hostOffset);
    const { isWrong, allocatedClusters, fragmentedClusters, compressedClusters } = findings;
    if (isWrong) this.#end = this.#ranges;
    const records = this.#records;
    records[at + TableField.ranges] = isWrong ? -1 : (this.#end - this.#ranges) / 2;
    records[at + TableField.allocated] = allocatedClusters;
    records[at + TableField.fragmented] = fragmentedClusters;
    records[at + TableField.compressed] = compressedClusters;
    records[at + TableField.copiedSuspect] = checker.takeCopiedSuspect() ? 1 : 0;
  }

  #count(hostOffset: number, length: number): void {
    const { geometry } = this.#image;
    const { clusterSize } = geometry;
    if (hostOffset + length - this.#fileLength >= clusterSize) {
      this.#findings.isWrong = true;
      return;
    }
    const first = Math.floor(hostOffset / clusterSize);
    const count = geometry.clusters(hostOffset + length) - first;
    const records = this.#records;
    const last = this.#end - 2;
    if (last >= this.#ranges && records[last] + records[last + 1] === first) {
      records[last + 1] += count;
      return;
    }
    records[this.#end] = first;
    records[this.#end + 1] = count;
    this.#end += 2;
  }

  /** Makes room for so many numbers. */
  #reserve(numbers: number): void {
    if (this.#end + numbers <= this.#records.length) return;
    const longer = new Float64Array(2 * (this.#end + numbers));
    longer.set(this.#records.subarray(0, this.#end));
    this.#records = longer;
  }
}

const port = parentPort!;
const orders = workerData as TableOrders;
const file = await attachStorageFile(orders.file);
const reader = new TableReader(orders, file);
let reading: Promise<void> = Promise.resolve();
port.on('message', (batch: TableBatch | 'end') => {
  reading = reading.then(async () => {
    if (batch === 'end') {
      port.close();
      await file.close();
      return;
    }
    // Whoever asked meets the failure, in its turn, when it reads these tables itself.
    const records = await reader.read(batch).catch(() => undefined);
    port.postMessage(records, records === undefined ? [] : [records.buffer]);
  });
});
