/**
 * Checking L2 tables on several threads: each looks at batches of tables and answers which clusters
 * they refer to; the answers come back in the order of the tables. A table in which anything is
 * wrong is left to the caller, so that findings are made in one place and in one order.
 */
import { Worker } from 'node:worker_threads';
import {
  type TableBatch,
  TableField,
  type TableOrders,
  tableFields,
} from './check-tables-messages.js';
import { Watchdog } from '../../../../engine/words/watchdog.js';
import { workerModule } from '../../../../package-folder.js';
import type { TablePointer } from '../../tables/table-walk.js';

/** Bytes of tables that a thread is given at once, and how often before it has answered. */
const batchBytes = 2 * 1024 * 1024;
const batchesAhead = 2;
const maxBatchTables = 1024;
/** Of each thread's short-lived objects, in MiB: all threads together are to stay small. */
const youngMegabytes = 4;

/** What a table refers to. */
export interface ReadTable extends TablePointer {
  /** Undefined if something is wrong with the table, or it could not be read. */
  readonly content: TableContent | undefined;
}

/** See `ReadTable`. */
export interface TableContent {
  /** First host cluster and number of clusters of each range that is referred to, alternating. */
  readonly ranges: Float64Array;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  /** Whether some COPIED flag contradicts the counts in the file. */
  readonly copiedSuspect: boolean;
}

/** What the threads run; undefined if it is not here. */
export function tableThreadModule(): URL | undefined {
  return workerModule('check-tables-worker.js', import.meta.url);
}

/** Tables that a thread was given, and its answer. */
interface Batch {
  readonly tables: readonly TablePointer[];
  readonly answer: Promise<Float64Array | undefined>;
}

/** Threads that read the tables of one image. */
export class TableThreads {
  readonly #threads: TableThread[];
  readonly #watchdog: Watchdog;
  readonly #batchTables: number;

  /**
   * @param module what the threads run
   * @param tableBytes bytes of a table
   */
  constructor(module: URL, orders: TableOrders, threads: number, tableBytes: number) {
    this.#watchdog = new Watchdog(orders.file.filename);
    this.#threads = Array.from({ length: threads }, () => new TableThread(module, orders));
    this.#batchTables = Math.max(1, Math.min(maxBatchTables, Math.floor(batchBytes / tableBytes)));
  }

  /** Reads the tables of one L1 table, `active` or a snapshot's. */
  async *read(pointers: Iterable<TablePointer>, active: boolean): AsyncGenerator<ReadTable> {
    const source = pointers[Symbol.iterator]();
    const ahead: Batch[] = [];
    let turn = 0;
    const start = (): void => {
      const tables: TablePointer[] = [];
      while (tables.length < this.#batchTables) {
        const next = source.next();
        if (next.done === true) break;
        tables.push(next.value);
      }
      if (tables.length === 0) return;
      const hostOffsets = Float64Array.from(tables, ({ hostOffset }) => hostOffset);
      const nth = turn++ % this.#threads.length;
      const answer = this.#threads[nth].read({ hostOffsets, active });
      ahead.push({ tables, answer: this.#watched(answer, nth) });
    };
    for (let count = 0; count < this.#threads.length * batchesAhead; count++) start();
    for (let next; (next = ahead.shift()) !== undefined;) {
      yield* readTables(next.tables, await next.answer);
      start();
    }
  }

  /** Ends the threads, once they have done what they were given. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread, nth) => this.#watched(thread.close(), nth)));
  }

  #watched<Result>(work: Promise<Result>, nth: number): Promise<Result> {
    const describe = (): string =>
      `thread ${nth} of the check, which has ${this.#threads[nth].batches} batches of tables`;
    return this.#watchdog.watch(work, describe);
  }
}

/** The tables of a batch with what its answer says of each. */
function* readTables(
  tables: readonly TablePointer[],
  records: Float64Array | undefined,
): Generator<ReadTable> {
  let at = 0;
  for (const table of tables) {
    const count = records === undefined ? -1 : records[at + TableField.ranges];
    if (records === undefined || count < 0) {
      yield { ...table, content: undefined };
      at += tableFields;
      continue;
    }
    const first = at + tableFields;
    yield {
      ...table,
      content: {
        ranges: records.subarray(first, first + 2 * count),
        allocatedClusters: records[at + TableField.allocated],
        fragmentedClusters: records[at + TableField.fragmented],
        compressedClusters: records[at + TableField.compressed],
        copiedSuspect: records[at + TableField.copiedSuspect] !== 0,
      },
    };
    at = first + 2 * count;
  }
}

/** One of the threads. */
class TableThread {
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  readonly #answers: ((records: Float64Array | undefined) => void)[] = [];
  #ended = false;

  constructor(module: URL, orders: TableOrders) {
    this.#worker = new Worker(module, {
      workerData: orders,
      // What a thread keeps is in few large buffers.
      resourceLimits: { maxYoungGenerationSizeMb: youngMegabytes },
    });
    this.#worker.on('message', (records: Float64Array | undefined) => {
      this.#answers.shift()?.(records);
    });
    // A thread that could not begin, or has died, answers nothing; its tables are read without it.
    this.#worker.on('error', () => {
      this.#end();
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#end();
        resolve();
      });
    });
  }

  /** Batches that it has not answered. */
  get batches(): number {
    return this.#answers.length;
  }

  /** @returns the records of the tables, or undefined if they could not be read */
  read(batch: TableBatch): Promise<Float64Array | undefined> {
    if (this.#ended) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#answers.push(resolve);
      this.#worker.postMessage(batch, [batch.hostOffsets.buffer as ArrayBuffer]);
    });
  }

  async close(): Promise<void> {
    if (!this.#ended) this.#worker.postMessage('end');
    await this.#exited;
  }

  #end(): void {
    this.#ended = true;
    for (const answer of this.#answers.splice(0)) answer(undefined);
  }
}
