/**
 * Checking a QED image: whether every cluster belongs to the header, one table or one block of the disk.
 * A repair takes invalid entries out of the tables, then says that the image was checked; each step is
 * durable before the next, so that a power cut leaves an image no worse than it was.
 */
import { CowherdError } from '../../errors.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CheckOptions, CheckReport } from '../check.js';
import { CheckTally } from '../mapped/check-tally.js';
import { tablePieces } from '../mapped/table-pieces.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import {
  type QedHeader,
  areClusters,
  markQedChecked,
  qedEntryBytes,
  readQedHeader,
} from './header.js';
import { qedEntryOf, qedZeroEntry } from './mapping.js';

const explanations = {
  leak: 'Space in the file is taken and nothing refers to it; no data is harmed.',
  shared:
    'Something else lies at the same place in the file, so either may have overwritten the other, and a write to one changes both.',
  invalidTable:
    'A pointer to a mapping table is damaged: the data of the whole range that the table maps cannot be reached; -r all takes the pointer out, and the range reads as if it had never been written.',
  invalidCluster:
    'A mapping entry is damaged: the data of this one cluster cannot be reached; -r all takes the entry out, and the cluster reads as if it had never been written.',
  unreadable: 'A mapping table cannot be read, so what lies in its range is unknown.',
} as const;

type Topic = keyof typeof explanations;

/** Checks an image. */
export async function checkQed(file: StorageFile, options: CheckOptions): Promise<CheckReport> {
  return new Check(file, await readQedHeader(file), options).run();
}

class Check {
  readonly #file: StorageFile;
  readonly #header: QedHeader;
  readonly #options: CheckOptions;
  readonly #tally: CheckTally<Topic>;
  #used!: UsedClusters;

  constructor(file: StorageFile, header: QedHeader, options: CheckOptions) {
    this.#file = file;
    this.#header = header;
    this.#options = options;
    this.#tally = new CheckTally(explanations, options.onFinding);
  }

  async run(): Promise<CheckReport> {
    const { filename } = this.#file;
    const { size, clusterSize, clustersStart, clustersEnd, needsCheck } = this.#header;
    const tally = this.#tally;
    const clusters = (clustersEnd - clustersStart) / clusterSize;
    const used = UsedClusters.of(clusters);
    if (used === undefined) {
      tally.failure = 'EFBIG';
      return tally.report(filename, 'qed');
    }
    this.#used = used;
    tally.totalClusters = Math.ceil(size / clusterSize);
    const areTablesRead = await this.#checkTables();
    const leaks = clusters - used.count;
    if (areTablesRead && leaks > 0) {
      const message = `Leaked clusters: ${leaks} of ${clusters} are referenced by nothing`;
      tally.leak('leak', message, leaks);
    }
    if (this.#options.repair !== undefined) {
      await this.#file.flush();
      if (tally.isSound && needsCheck) await markQedChecked(this.#file);
    }
    return tally.report(filename, 'qed');
  }

  /** @returns whether all of them could be read */
  async #checkTables(): Promise<boolean> {
    const { l1TableOffset, tableBytes } = this.#header;
    const { signal, onProgress } = this.#options;
    this.#take(l1TableOffset, tableBytes, 'L1 table');
    let areRead = true;
    const pieces = tablePieces(this.#file, l1TableOffset, tableBytes, { skipsHoles: true });
    for await (const piece of pieces) {
      const { at, view } = piece;
      for (let within = 0; within < view.byteLength; within += qedEntryBytes) {
        const table = qedEntryOf(view, within / qedEntryBytes);
        if (table === 0) continue;
        signal?.throwIfAborted();
        if (!areClusters(this.#header, table, tableBytes)) {
          const what = `L1 entry ${(at + within) / qedEntryBytes}: L2 table offset`;
          if (this.#invalid('invalidTable', what, table)) {
            view.setBigUint64(within, 0n, true);
            piece.changed(within, qedEntryBytes);
          }
        } else if (this.#take(table, tableBytes, 'L2 table')) {
          areRead = (await this.#checkL2Table(table)) && areRead;
        }
        onProgress?.({ doneBytes: at + within + qedEntryBytes, totalBytes: tableBytes });
      }
      await piece.write();
    }
    return areRead;
  }

  async #checkL2Table(table: number): Promise<boolean> {
    const { clusterSize, tableBytes } = this.#header;
    const tally = this.#tally;
    let last = 0;
    try {
      const pieces = tablePieces(this.#file, table, tableBytes, { skipsHoles: true });
      for await (const piece of pieces) {
        const { at, view } = piece;
        for (let within = 0; within < view.byteLength; within += qedEntryBytes) {
          const cluster = qedEntryOf(view, within / qedEntryBytes);
          if (cluster === 0 || cluster === qedZeroEntry) continue;
          tally.allocatedClusters += 1;
          if (last !== 0 && last + clusterSize !== cluster) tally.fragmentedClusters += 1;
          last = cluster;
          if (areClusters(this.#header, cluster, clusterSize)) {
            this.#take(cluster, clusterSize, 'Data cluster');
            continue;
          }
          const what = `L2 table ${hex(table)} entry ${(at + within) / qedEntryBytes}: data cluster offset`;
          if (this.#invalid('invalidCluster', what, cluster)) {
            view.setBigUint64(within, 0n, true);
            piece.changed(within, qedEntryBytes);
          }
        }
        await piece.write();
      }
      return true;
    } catch (error) {
      if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_IO') throw error;
      tally.error('unreadable', `ERROR: ${error.message}`);
      return false;
    }
  }

  /** An entry that cannot be. @returns whether it is to be taken out */
  #invalid(topic: Topic, what: string, offset: number): boolean {
    const isRepaired = this.#options.repair === 'all';
    const message = `${what} ${hex(offset)} is invalid`;
    if (isRepaired) this.#tally.repair(topic, `Repairing ${message}`);
    else this.#tally.corruption(topic, `ERROR ${message}`);
    return isRepaired;
  }

  /** Takes the clusters of a range. @returns whether all of them were free until now */
  #take(offset: number, length: number, what: string): boolean {
    const { clusterSize, clustersStart } = this.#header;
    const first = (offset - clustersStart) / clusterSize;
    let shared = 0;
    for (let index = 0; index < length / clusterSize; index++) {
      if (!this.#used.take(first + index)) shared += 1;
    }
    if (shared === 0) return true;
    const message = `ERROR ${what} at ${hex(offset)} overlaps what is referenced already`;
    this.#tally.corruption('shared', message, shared);
    return false;
  }
}

function hex(offset: number): string {
  return `0x${offset.toString(16)}`;
}
