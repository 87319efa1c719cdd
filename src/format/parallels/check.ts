/**
 * Checking a Parallels image: whether each cluster of the catalog lies in the file, and is no other's.
 *
 * A repair goes from what the file has to what refers to it, each step durable before the next, so that a
 * power cut leaves an image no worse than it was:
 *
 *     header's place of the data ▏ entries beyond the file ▏ file's end ▏ copies ▏ their entries ▏ in-use mark
 */
import { maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CheckOptions, CheckReport } from '../check.js';
import { CheckTally } from '../mapped/check-tally.js';
import { type TablePiece, tablePieces } from '../mapped/table-pieces.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import {
  type ParallelsHeader,
  decodeParallelsHeader,
  parallelsDataOffset,
  parallelsHeaderBytes,
  parallelsWord,
} from './header.js';
import { parallelsEntryBytes } from './mapping.js';

const sectorSize = 512;
/** Bytes of a cluster that are copied at a time. */
const copiedBytes = 1024 * 1024;
const maxEntry = 0xffffffff;

const explanations = {
  unclean:
    'The program that wrote to the image last did not close it; what it had not finished may be missing; -r all takes the mark away.',
  dataOffset:
    'The header names an impossible place for the begin of the data; the data reads well, and -r all writes down the right one.',
  outside:
    'A cluster is said to lie where the file has ended: its data is lost; -r all takes the entry out, and the cluster reads as zeroes.',
  beforeData:
    'A cluster is said to lie before the begin of the data; it reads as what is there, and a program that believes the header may put something else there.',
  leak: 'Space at the end of the file is taken and nothing refers to it; no data is harmed, and -r leaks cuts it off.',
  shared:
    'Two clusters of the disk lie at one place, so that writing to one changes both; -r all gives the later one a copy of its own.',
} as const;

type Topic = keyof typeof explanations;

/** Checks an image. */
export async function checkParallels(
  file: StorageFile,
  options: CheckOptions,
): Promise<CheckReport> {
  const bytes = new Uint8Array(parallelsHeaderBytes);
  await file.read(bytes, 0);
  const header = decodeParallelsHeader(bytes, file.filename);
  // As QEMU has it, whose lengths are whole sectors.
  const length = Math.ceil((await file.size()) / sectorSize) * sectorSize;
  return new Check(file, header, length, options).run();
}

class Check {
  readonly #file: StorageFile;
  readonly #header: ParallelsHeader;
  readonly #options: CheckOptions;
  readonly #tally: CheckTally<Topic>;
  readonly #fixesErrors: boolean;
  readonly #fixesLeaks: boolean;
  /** Host offset in bytes where data may begin. */
  readonly #dataStart: number;
  /** Of the file, in bytes. */
  #length: number;

  constructor(file: StorageFile, header: ParallelsHeader, length: number, options: CheckOptions) {
    this.#file = file;
    this.#header = header;
    this.#options = options;
    this.#tally = new CheckTally(explanations, options.onFinding);
    this.#fixesErrors = options.repair === 'all';
    this.#fixesLeaks = options.repair !== undefined;
    this.#length = length;
    this.#dataStart = parallelsDataOffset(header, length);
  }

  async run(): Promise<CheckReport> {
    const { filename } = this.#file;
    const { isInUse, catalogEntries, clusterBytes } = this.#header;
    const tally = this.#tally;
    const used = UsedClusters.of(
      Math.max(0, Math.ceil((this.#length - this.#dataStart) / clusterBytes)),
    );
    if (used === undefined) {
      tally.failure = 'EFBIG';
      return tally.report(filename, 'parallels');
    }
    tally.totalClusters = catalogEntries;
    if (isInUse) this.#tell('unclean', 'image was not closed correctly');
    await this.#checkDataOffset();
    await this.#checkOutside();
    await this.#checkLeak();
    await this.#checkShared(used);
    if (this.#fixesErrors && isInUse) await this.#write(parallelsWord.inUse, 0);
    return tally.report(filename, 'parallels');
  }

  async #checkDataOffset(): Promise<void> {
    const { dataOffset, isOld } = this.#header;
    if (dataOffset === this.#dataStart || (isOld && dataOffset === 0)) return;
    this.#tell('dataOffset', 'data_off field has incorrect value');
    if (this.#fixesErrors)
      await this.#write(parallelsWord.dataOffset, this.#dataStart / sectorSize);
  }

  /** Finds clusters that the file does not have, and the end of the last one that it has. */
  async #checkOutside(): Promise<void> {
    const { clusterBytes } = this.#header;
    let end = 0;
    for await (const piece of this.#pieces()) {
      for (const { cluster, offset } of this.#entries(piece)) {
        if (offset + clusterBytes > this.#length) {
          this.#tell('outside', `cluster ${cluster} is outside image`);
          if (this.#fixesErrors) setEntry(piece, cluster, 0);
          continue;
        }
        // The entry may be right, and the header wrong: it is left.
        if (offset < this.#dataStart) {
          this.#tally.corruption('beforeData', `ERROR cluster ${cluster} is before the data`);
        }
        end = Math.max(end, offset + clusterBytes);
      }
      await piece.write();
    }
    this.#tally.imageEndOffset = end === 0 ? this.#dataStart : end;
    if (this.#fixesErrors) await this.#file.flush();
  }

  async #checkLeak(): Promise<void> {
    const end = this.#tally.imageEndOffset;
    const leaked = this.#length - end;
    if (leaked <= 0) return;
    const count = Math.ceil(leaked / this.#header.clusterBytes);
    const what = `space leaked at the end of the image ${leaked}`;
    if (!this.#fixesLeaks) {
      this.#tally.leak('leak', `ERROR ${what}`, count);
      return;
    }
    this.#tally.repairLeak('leak', `Repairing ${what}`, count);
    await this.#file.truncate(end);
    await this.#file.flush();
    this.#length = end;
  }

  /** Finds clusters that lie at one place, and counts clusters. */
  async #checkShared(used: UsedClusters): Promise<void> {
    const { clusterBytes } = this.#header;
    const tally = this.#tally;
    let before = { cluster: -1, offset: 0 };
    for await (const piece of this.#pieces()) {
      for (const entry of this.#entries(piece)) {
        const { cluster, offset } = entry;
        if (offset + clusterBytes > tally.imageEndOffset) continue;
        tally.allocatedClusters += 1;
        const isNext = before.cluster + 1 === cluster;
        if (isNext && before.offset + clusterBytes !== offset) tally.fragmentedClusters += 1;
        before = entry;
        if (offset < this.#dataStart) continue;
        if (used.take(Math.floor((offset - this.#dataStart) / clusterBytes))) continue;
        const copy = this.#fixesErrors ? await this.#copyOf(offset, cluster) : undefined;
        if (copy !== undefined) setEntry(piece, cluster, copy);
        else tally.corruption('shared', `ERROR duplicate offset in BAT entry ${cluster}`);
      }
      if (!this.#fixesErrors) continue;
      await this.#file.flush();
      await piece.write();
    }
    if (this.#fixesErrors) await this.#file.flush();
  }

  /** Copies a cluster to the end of the file. @returns its entry; undefined if there is none so high */
  async #copyOf(offset: number, cluster: number): Promise<number | undefined> {
    const { clusterBytes, offsetUnit } = this.#header;
    const place = this.#length;
    if (place / offsetUnit > maxEntry || place + clusterBytes > maxOffset) return undefined;
    this.#tally.repair('shared', `Repairing duplicate offset in BAT entry ${cluster}`);
    const bytes = new Uint8Array(Math.min(clusterBytes, copiedBytes));
    for (let done = 0; done < clusterBytes; done += bytes.length) {
      this.#options.signal?.throwIfAborted();
      const part = bytes.subarray(0, clusterBytes - done);
      await this.#file.read(part, offset + done);
      await this.#file.write(part, place + done);
    }
    this.#length = place + clusterBytes;
    return place / offsetUnit;
  }

  async *#pieces(): AsyncGenerator<TablePiece> {
    const { signal, onProgress } = this.#options;
    // What lies beyond the end of the file is entries of nothing.
    const entries = Math.floor((this.#length - parallelsHeaderBytes) / parallelsEntryBytes);
    const totalBytes = Math.min(entries, this.#header.catalogEntries) * parallelsEntryBytes;
    const holes = { skipsHoles: true };
    for await (const piece of tablePieces(this.#file, parallelsHeaderBytes, totalBytes, holes)) {
      signal?.throwIfAborted();
      yield piece;
      onProgress?.({ doneBytes: piece.at + piece.view.byteLength, totalBytes });
    }
  }

  /** The clusters of a piece of the catalog that have a place. */
  *#entries({ at, view }: TablePiece): Generator<{ cluster: number; offset: number }> {
    const { offsetUnit } = this.#header;
    for (let within = 0; within < view.byteLength; within += parallelsEntryBytes) {
      const entry = view.getUint32(within, true);
      const cluster = (at + within) / parallelsEntryBytes;
      if (entry !== 0) yield { cluster, offset: entry * offsetUnit };
    }
  }

  /** Damage, which is put right if errors are. */
  #tell(topic: Topic, what: string): void {
    if (this.#fixesErrors) this.#tally.repair(topic, `Repairing ${what}`);
    else this.#tally.corruption(topic, `ERROR ${what}`);
  }

  /** Changes a word of the header, durably. */
  async #write(at: number, value: number): Promise<void> {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    await this.#file.write(bytes, at);
    await this.#file.flush();
  }
}

function setEntry(piece: TablePiece, cluster: number, entry: number): void {
  const within = cluster * parallelsEntryBytes - piece.at;
  piece.view.setUint32(within, entry, true);
  piece.changed(within, parallelsEntryBytes);
}
