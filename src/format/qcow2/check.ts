/**
 * Checking an image: counts every reference to every host cluster and compares with the reference
 * counts on disk. Findings carry qemu-img's words. Memory is half a byte a host cluster.
 */
import type { StorageFile } from '../../storage/storage.js';
import { bigEndian, wordsOf } from './big-endian.js';
import { readBitmaps } from './bitmaps.js';
import { type CheckReport, Findings, entryHex } from './check-findings.js';
import { L2Checker } from './check-l2.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import type { Qcow2Image } from './image.js';
import { PackedCounts } from './packed-counts.js';
import { refcountWidth } from './refcount-width.js';
import { readSnapshots } from './snapshots.js';
import { type TablePointer, walkTables } from './table-walk.js';

/** How a check is observed and cancelled. */
export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?:
    ((progress: { readonly doneBytes: number; readonly totalBytes: number }) => void) | undefined;
}

const l1ReservedHigh = 0x7f000000;
const l1ReservedLow = 0x1ff;
const offsetHighMask = 0x00ffffff;
const two32 = 0x100000000;
const copiedHigh = 0x80000000;
/** Entries of bitmap tables: reserved bits, and the flag for a run of ones without a cluster. */
const bitmapOffsetLowMask = 0xfffffe00;

/** Checks an open image, whose changes have been flushed. */
export function checkQcow2(
  image: Qcow2Image,
  dataFile: StorageFile | undefined,
  options: CheckOptions,
): Promise<CheckReport> {
  return new Checker(image, dataFile !== undefined, options).run();
}

class Checker {
  readonly #image: Qcow2Image;
  readonly #externalData: boolean;
  readonly #options: CheckOptions;
  readonly #file: StorageFile;
  readonly #geometry: Geometry;
  readonly #header: Qcow2Header;
  readonly #findings = new Findings();
  #fileLength = 0;
  /** References found, and reference counts on disk. */
  #found = new PackedCounts(0);
  #stored = new PackedCounts(0);
  /** Refcount blocks that cannot be read, so that nothing is known of what they count. */
  readonly #unreadable = new Set<number>();

  constructor(image: Qcow2Image, externalData: boolean, options: CheckOptions) {
    const { file, geometry, headerFile } = image.metadata;
    this.#image = image;
    this.#externalData = externalData;
    this.#options = options;
    this.#file = file;
    this.#geometry = geometry;
    this.#header = headerFile.header;
  }

  async run(): Promise<CheckReport> {
    this.#fileLength = await this.#file.size();
    const clusters = this.#geometry.clusters(this.#fileLength);
    this.#found = new PackedCounts(clusters);
    this.#stored = new PackedCounts(clusters);
    await this.#readStored(clusters);
    this.#count(0, this.#geometry.clusterSize);
    const { l1TableOffset, l1Entries } = this.#header;
    await this.#countL1(l1TableOffset, l1Entries, true);
    await this.#countSnapshots();
    await this.#countBitmaps();
    this.#countRefcountStructures();
    this.#compare();
    this.#findings.appendCopiedFindings();
    return this.#findings.report({
      filename: this.#file.filename,
      imageEndOffset: (this.#highest() + 1) * this.#geometry.clusterSize,
      totalClusters: this.#geometry.clusters(this.#header.size),
    });
  }

  /** Counts a reference to every cluster that a range of the file touches. */
  #count(hostOffset: number, length: number, exact = hex(hostOffset)): void {
    if (length === 0) return;
    const { clusterSize } = this.#geometry;
    if (hostOffset + length - this.#fileLength >= clusterSize) {
      this.#findings.corruption(
        `ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x${exact} size 0x${hex(length)}`,
      );
      return;
    }
    const first = Math.floor(hostOffset / clusterSize);
    this.#found.increment(first, this.#geometry.clusters(hostOffset + length) - first);
  }

  /**
   * Reads the counts of the file's clusters, and of one that begins where the file ends. Those
   * beyond are left out: a small file could claim any number of them.
   */
  async #readStored(clusters: number): Promise<void> {
    const { refcountsPerBlock, clusterSize, refcountOrder, refcountBits } = this.#geometry;
    const { table } = this.#image.metadata.refcounts;
    const width = refcountWidth(refcountOrder, this.#file.filename);
    const pointers: TablePointer[] = [];
    for (let block = 0; block < table.length; block++) {
      const hostOffset = table.offset(block);
      if (hostOffset % clusterSize !== 0) this.#unreadable.add(block);
      else if (
        hostOffset !== 0 &&
        hostOffset < this.#fileLength &&
        block * refcountsPerBlock <= clusters
      ) {
        pointers.push({ index: block, hostOffset });
      }
    }
    for await (const block of walkTables(this.#file, pointers, clusterSize)) {
      this.#options.signal?.throwIfAborted();
      const first = block.index * refcountsPerBlock;
      const { view } = block;
      const words = wordsOf(view);
      const end = Math.min(refcountsPerBlock, clusters + 1 - first);
      for (let index = 0; index < end;) {
        const ones = refcountBits === 16 && index % 2 === 0 ? pairsOfOnes(words, index / 2) * 2 : 0;
        const plain = Math.min(ones, clusters - first - index);
        if (plain > 0) {
          this.#stored.increment(first + index, plain);
          index += plain;
        } else {
          const count = width.get(view, 0, index);
          if (count !== 0) this.#stored.set(first + index, count);
          index++;
        }
      }
    }
  }

  /** Counts the references of an L1 table, of its L2 tables, and of their clusters. */
  async #countL1(hostOffset: number, entries: number, active: boolean): Promise<void> {
    if (entries === 0) return;
    const { clusterSize } = this.#geometry;
    this.#count(hostOffset, entries * 8);
    const l1 = new DataView(new ArrayBuffer(entries * 8));
    await this.#file.read(new Uint8Array(l1.buffer), hostOffset);
    const checker = new L2Checker({
      geometry: this.#geometry,
      entries: this.#image.metadata.entries,
      externalData: this.#externalData,
      active,
      stored: this.#stored,
      isKnown: (cluster) => this.#isKnown(cluster),
      findings: this.#findings,
      count: (offset, length, exact) => {
        this.#count(offset, length, exact);
      },
    });
    const pointers = this.#l2Pointers(l1, entries, active);
    for await (const table of walkTables(this.#file, pointers, clusterSize)) {
      this.#options.signal?.throwIfAborted();
      checker.check(table.view);
      if (active) {
        const doneBytes = Math.min(this.#image.size, (table.index + 1) * this.#geometry.tableReach);
        this.#options.onProgress?.({ doneBytes, totalBytes: this.#image.size });
      }
    }
  }

  *#l2Pointers(l1: DataView, entries: number, active: boolean): Generator<TablePointer> {
    const { clusterSize } = this.#geometry;
    for (let index = 0; index < entries; index++) {
      const high = l1.getUint32(index * 8);
      const low = l1.getUint32(index * 8 + 4);
      const hostOffset = (high & offsetHighMask) * two32 + ((low & ~l1ReservedLow) >>> 0);
      if (hostOffset === 0) continue;
      if ((high & l1ReservedHigh) !== 0 || (low & l1ReservedLow) !== 0) {
        this.#findings.corruption(
          `ERROR found L1 entry with reserved bits set: ${entryHex(high, low)}`,
        );
      }
      this.#count(hostOffset, clusterSize);
      if (hostOffset % clusterSize !== 0) {
        this.#findings.corruption(
          `ERROR l2_offset=${hex(hostOffset)}: Table is not cluster aligned; L1 entry corrupted`,
        );
      }
      const cluster = Math.floor(hostOffset / clusterSize);
      const count = this.#stored.get(cluster);
      const copied = (high & copiedHigh) !== 0;
      if (active && this.#isKnown(cluster) && (count === 1) !== copied) {
        this.#findings.copiedCorruption(
          `ERROR OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${entryHex(high, low)} refcount=${count}`,
        );
      }
      if (hostOffset < this.#fileLength) yield { index, hostOffset };
    }
  }

  async #countSnapshots(): Promise<void> {
    const { snapshots, lengthBytes } = await readSnapshots(this.#file, this.#header);
    for (const snapshot of snapshots) {
      if (snapshot.l1Offset % this.#geometry.clusterSize !== 0) {
        this.#findings.corruption(
          `ERROR snapshot ${snapshot.id} (${snapshot.name}) l1_offset=0x${hex(snapshot.l1Offset)}: L1 table is not cluster aligned; snapshot table entry corrupted`,
        );
        continue;
      }
      await this.#countL1(snapshot.l1Offset, snapshot.l1Entries, false);
    }
    this.#count(this.#header.snapshotsOffset, lengthBytes);
  }

  async #countBitmaps(): Promise<void> {
    const directory = await readBitmaps(this.#file, this.#header);
    if (directory === undefined) return;
    const { clusterSize } = this.#geometry;
    this.#count(directory.directoryOffset, directory.directoryBytes);
    for (const bitmap of directory.bitmaps) {
      this.#count(bitmap.tableOffset, bitmap.tableEntries * 8);
      if (bitmap.tableEntries * 8 > this.#fileLength) continue;
      const table = new DataView(new ArrayBuffer(bitmap.tableEntries * 8));
      await this.#file.read(new Uint8Array(table.buffer), bitmap.tableOffset);
      for (let index = 0; index < bitmap.tableEntries; index++) {
        const high = table.getUint32(index * 8) & offsetHighMask;
        const low = (table.getUint32(index * 8 + 4) & bitmapOffsetLowMask) >>> 0;
        if (high !== 0 || low !== 0) this.#count(high * two32 + low, clusterSize);
      }
    }
  }

  #countRefcountStructures(): void {
    const { clusterSize } = this.#geometry;
    const { table } = this.#image.metadata.refcounts;
    this.#count(table.hostOffset, table.length * 8);
    for (let block = 0; block < table.length; block++) {
      const hostOffset = table.offset(block);
      if (hostOffset === 0) continue;
      if (hostOffset % clusterSize !== 0) {
        this.#findings.corruption(
          `ERROR refcount block ${block} is not cluster aligned; refcount table entry corrupted`,
        );
      } else if (hostOffset >= this.#fileLength) {
        this.#findings.corruption(`ERROR refcount block ${block} is outside image`);
      } else {
        this.#count(hostOffset, clusterSize);
        const references = this.#found.get(hostOffset / clusterSize);
        if (references !== 1) {
          this.#findings.corruption(`ERROR refcount block ${block} refcount=${references}`);
        }
      }
    }
  }

  /** Whether the reference count of a cluster could be read. */
  #isKnown(cluster: number): boolean {
    if (this.#unreadable.size === 0) return true;
    return !this.#unreadable.has(Math.floor(cluster / this.#geometry.refcountsPerBlock));
  }

  /** The first cluster beyond the file, and beyond what refers to a part of a cluster there. */
  #end(): number {
    return Math.max(this.#geometry.clusters(this.#fileLength), this.#found.highest() + 1);
  }

  /** The last cluster in use, as far as counts are known; the header's at least. */
  #highest(): number {
    let highest = Math.max(this.#found.highest(), this.#stored.highest(this.#end()), 0);
    while (highest > 0 && !this.#isKnown(highest)) highest--;
    return highest;
  }

  #compare(): void {
    const { refcountsPerBlock } = this.#geometry;
    const clusters = this.#geometry.clusters(this.#fileLength);
    for (const block of this.#unreadable) {
      const end = Math.min(clusters, (block + 1) * refcountsPerBlock);
      for (let cluster = block * refcountsPerBlock; cluster < end; cluster++) {
        this.#findings.error(`Can't get refcount for cluster ${cluster}: Input/output error`);
      }
    }
    const fileEnd = this.#end();
    this.#stored.forEachDifference(this.#found, (cluster, stored, found) => {
      // What is counted but not there takes no space.
      if (cluster >= fileEnd || !this.#isKnown(cluster)) return;
      const fact = `cluster ${cluster} refcount=${stored} reference=${found}`;
      if (stored > found) this.#findings.leak(`Leaked ${fact}`);
      else this.#findings.corruption(`ERROR ${fact}`);
    });
  }
}

function hex(value: number): string {
  return value.toString(16);
}

/** How many words from one on hold two 16-bit counts of one each, as most of most images do. */
function pairsOfOnes(words: Uint32Array, from: number): number {
  const ones = bigEndian(0x00010001);
  let at = from;
  while (at < words.length && words[at] === ones) at++;
  return at - from;
}
