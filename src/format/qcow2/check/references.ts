/**
 * Counting: every reference that an image's own tables make to a cluster of its file, from the
 * header, the L1 and L2 tables, snapshots, bitmaps, the encryption header and the refcount
 * structures, and what is wrong with these tables themselves.
 */
import { printable, cannotOpen } from '../../../errors.js';
import { maxBitmapTableEntries, maxFileLength } from '../../../limits.js';
import { bitmapClusterOffset, isBitmapTable } from '../contents/bitmap-table.js';
import { readBitmaps } from '../contents/bitmaps.js';
import { CheckGivenUp, type Findings, entryHex } from './findings/findings.js';
import { L2Checker, type DroppablePlace } from './tables/l2-table.js';
import { type CheckedSnapshots, l1TableFault } from './tables/snapshot-table.js';
import type { TableContent, TableThreads } from './threads/check-tables.js';
import { type CheckedImage, l2TableOffset } from './tables/checked-image.js';
import { ExtensionType, findExtension } from '../layout/header-extensions.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import type { StoredCounts } from './counts/stored-counts.js';
import { type TablePointer, walkTables } from '../tables/table-walk.js';

const l1ReservedHigh = 0x7f000000;
const l1ReservedLow = 0x1ff;
const refcountReservedLow = 0x1ff;
const copiedHigh = 0x80000000;
/** Bytes of L2 tables from which on other threads are worth their start. */
const leastThreadedBytes = 16 * 1024 * 1024;
/** Ranges beyond the file that are remembered. */
const maxDangling = 4096;

/** What counting is told and asked for. */
export interface CountingOptions {
  readonly findings: Findings;
  readonly stored: StoredCounts;
  /** How many threads read L2 tables, where there are enough of them; this one does if it is 1. */
  readonly threads: number;
  /** Whether damaged entries are to be repaired, as far as that can be done one by one. */
  readonly repairing: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onL1Entry: ((doneBytes: number) => void) | undefined;
}

/** What was counted. */
export interface References {
  readonly found: PackedCounts;
  /** Whether the refcount structures themselves are unusable. */
  readonly rebuild: boolean;
  /** Whether some COPIED flag of the active tables contradicts the counts in the file. */
  readonly copiedSuspect: boolean;
  /** Places in entries that keep no data there, which a repair takes away; they are not counted. */
  readonly droppable: readonly DroppablePlace[];
  /** Ranges beyond the end of the file that are referred to, in clusters. */
  readonly dangling: readonly { readonly first: number; readonly clusters: number }[];
}

/** Counts the references of an image whose file has `fileLength` bytes. */
export async function countReferences(
  image: CheckedImage,
  snapshots: CheckedSnapshots,
  fileLength: number,
  options: CountingOptions,
): Promise<References> {
  const counter = new ReferenceCounter(image, fileLength, options);
  await counter.run(snapshots);
  const { found, rebuild, copiedSuspect, droppable, dangling } = counter;
  return { found, rebuild, copiedSuspect, droppable, dangling };
}

class ReferenceCounter implements References {
  readonly found: PackedCounts;
  rebuild = false;
  copiedSuspect = false;
  readonly droppable: DroppablePlace[] = [];
  readonly dangling: { first: number; clusters: number }[] = [];
  readonly #image: CheckedImage;
  readonly #fileLength: number;
  readonly #options: CountingOptions;
  #threads: TableThreads | undefined;

  constructor(image: CheckedImage, fileLength: number, options: CountingOptions) {
    const { geometry } = image;
    this.#image = image;
    this.#fileLength = fileLength;
    this.#options = options;
    const clusters = geometry.clusters(fileLength);
    this.found = new PackedCounts(clusters, geometry.maxRefcount, (cluster) => {
      const offset = hex(cluster * geometry.clusterSize);
      options.findings.corruption(
        'countLimit',
        `ERROR: overflow cluster offset=0x${offset}\nUse qemu-img amend to increase the refcount entry width or cowherd convert to create a clean copy if the image cannot be opened for writing`,
      );
    });
  }

  async run(snapshots: CheckedSnapshots): Promise<void> {
    const { header, geometry, l1 } = this.#image;
    this.#count(0, geometry.clusterSize);
    try {
      await this.#countL1(header.l1TableOffset, l1, true);
      await this.#countSnapshots(snapshots);
    } finally {
      await this.#threads?.close();
    }
    this.#count(header.refcountTableOffset, this.#image.refcountTable.byteLength);
    this.#countEncryptionHeader();
    await this.#countBitmaps();
    this.#countRefcountBlocks();
  }

  /** Counts a reference to every cluster that a range of the file touches. */
  #count(hostOffset: number, length: number, exact = hex(hostOffset)): void {
    if (length === 0) return;
    const { geometry } = this.#image;
    const { clusterSize } = geometry;
    const first = Math.floor(hostOffset / clusterSize);
    const count = geometry.clusters(hostOffset + length) - first;
    if (hostOffset + length - this.#fileLength >= clusterSize) {
      if (this.dangling.length < maxDangling) this.dangling.push({ first, clusters: count });
      this.#options.findings.corruption(
        'beyondEnd',
        `ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x${exact} size 0x${hex(length)}`,
      );
      return;
    }
    this.found.increment(first, count);
  }

  /** Counts the references of an L1 table, of its L2 tables, and of their clusters. */
  async #countL1(
    hostOffset: number,
    l1: DataView,
    active: boolean,
    exact = hex(hostOffset),
  ): Promise<void> {
    if (l1.byteLength === 0) return;
    const { geometry, entries, externalData } = this.#image;
    const { findings, stored, repairing, signal, onL1Entry } = this.#options;
    this.#count(hostOffset, l1.byteLength, exact);
    if (hostOffset + l1.byteLength > maxFileLength) {
      findings.error('beyondEnd', 'ERROR: I/O error in check_refcounts_l1');
      throw new CheckGivenUp('EIO');
    }
    const checker = new L2Checker({
      geometry,
      entries,
      externalData,
      active,
      stored: stored.counts,
      isKnown: (cluster) => this.#isKnown(cluster),
      fileClusters: geometry.clusters(this.#fileLength),
      findings,
      droppable: repairing ? this.droppable : undefined,
      count: (offset, length, exact) => {
        this.#count(offset, length, exact);
      },
    });
    let next = 0;
    // What is wrong with an entry of the L1 table is told before its L2 table is looked at.
    const checkEntries = (end: number): void => {
      for (; next < end; next++) this.#checkL1Entry(l1, next, active);
    };
    for await (const { index } of this.#checkTables(checker, l1, active, checkEntries)) {
      signal?.throwIfAborted();
      if (active) {
        onL1Entry?.(Math.min(this.#image.header.size, (index + 1) * geometry.tableReach));
      }
    }
    checkEntries(l1.byteLength / 8);
    this.copiedSuspect = checker.takeCopiedSuspect() || this.copiedSuspect;
  }

  /** Checks the L2 tables of an L1 table, on the threads there are. */
  async *#checkTables(
    checker: L2Checker,
    l1: DataView,
    active: boolean,
    checkEntries: (end: number) => void,
  ): AsyncGenerator<TablePointer> {
    const { file, geometry } = this.#image;
    const pointers = this.#l2Pointers(l1);
    const threads = await this.#threadsFor(l1);
    if (threads === undefined) {
      for await (const table of walkTables(file, pointers, geometry.clusterSize)) {
        checkEntries(table.index + 1);
        checker.check(table.view, table.hostOffset);
        yield table;
      }
      return;
    }
    for await (const table of threads.read(pointers, active)) {
      checkEntries(table.index + 1);
      if (table.content === undefined) {
        const view = await this.#image.readTable(table.hostOffset, geometry.clusterSize);
        checker.check(view, table.hostOffset);
      } else {
        this.#add(table.content);
      }
      yield table;
    }
  }

  /** Threads for the tables of an L1 table, or undefined where this one is as quick. */
  async #threadsFor(l1: DataView): Promise<TableThreads | undefined> {
    const { threads, stored } = this.#options;
    const { file, header, geometry } = this.#image;
    if (threads < 2 || (l1.byteLength / 8) * geometry.clusterSize < leastThreadedBytes) {
      return undefined;
    }
    const handle = file.handle?.();
    if (handle === undefined) return undefined;
    // Loaded only here: few checks have threads, and no other command does.
    const { TableThreads, tableThreadModule } = await import('./threads/check-tables.js');
    const module = tableThreadModule();
    if (module === undefined) return undefined;
    this.#threads ??= new TableThreads(
      module,
      {
        file: handle,
        header,
        fileLength: this.#fileLength,
        stored: stored.counts.shared,
        unreadable: stored.unreadable,
      },
      threads,
      geometry.clusterSize,
    );
    return this.#threads;
  }

  /** Adds up what another thread has found in a table. */
  #add(content: TableContent): void {
    const { findings } = this.#options;
    const { ranges } = content;
    for (let at = 0; at < ranges.length; at += 2) {
      this.found.increment(ranges[at], ranges[at + 1]);
    }
    findings.allocatedClusters += content.allocatedClusters;
    findings.fragmentedClusters += content.fragmentedClusters;
    findings.compressedClusters += content.compressedClusters;
    this.copiedSuspect ||= content.copiedSuspect;
  }

  /** Whether the reference count of a cluster could be read. */
  #isKnown(cluster: number): boolean {
    const { unreadable } = this.#options.stored;
    if (unreadable.size === 0) return true;
    return !unreadable.has(Math.floor(cluster / this.#image.geometry.refcountsPerBlock));
  }

  *#l2Pointers(l1: DataView): Generator<TablePointer> {
    for (let index = 0; index < l1.byteLength / 8; index++) {
      if (isEmpty(l1, index)) continue;
      const hostOffset = l2TableOffset(l1, index);
      if (hostOffset < this.#fileLength) yield { index, hostOffset };
    }
  }

  /** Judges an entry of an L1 table, and counts the reference to its L2 table. */
  #checkL1Entry(l1: DataView, index: number, active: boolean): void {
    if (isEmpty(l1, index)) return;
    const { clusterSize } = this.#image.geometry;
    const { findings, stored } = this.#options;
    const high = l1.getUint32(index * 8);
    const low = l1.getUint32(index * 8 + 4);
    if ((high & l1ReservedHigh) !== 0 || (low & l1ReservedLow) !== 0) {
      const entry = entryHex(high, low);
      findings.corruption('l1Reserved', `ERROR found L1 entry with reserved bits set: ${entry}`);
    }
    const hostOffset = l2TableOffset(l1, index);
    this.#count(hostOffset, clusterSize);
    if (hostOffset % clusterSize !== 0) {
      findings.corruption(
        'tableUnaligned',
        `ERROR l2_offset=${hex(hostOffset)}: Table is not cluster aligned; L1 entry corrupted`,
      );
    }
    const cluster = Math.floor(hostOffset / clusterSize);
    const copied = (high & copiedHigh) !== 0;
    const isBeyond = hostOffset >= this.#fileLength;
    const isRight = stored.counts.isOne(cluster) === copied && !isBeyond;
    if (active && hostOffset !== 0 && this.#isKnown(cluster) && !isRight) {
      this.copiedSuspect = true;
    }
  }

  async #countSnapshots({ snapshots, lengthBytes }: CheckedSnapshots): Promise<void> {
    const { header, geometry, externalData } = this.#image;
    const { findings } = this.#options;
    if (externalData && snapshots.length > 0) {
      findings.corruption(
        'snapshotsExternal',
        `ERROR ${snapshots.length} snapshots in image with data file`,
      );
    }
    for (const snapshot of snapshots) {
      const { id, name, l1Offset, l1OffsetHex, l1Entries } = snapshot;
      const fault = l1TableFault(geometry, snapshot);
      if (fault === 'unaligned') {
        findings.corruption(
          'snapshotUnaligned',
          `ERROR snapshot ${id} (${name}) l1_offset=0x${l1OffsetHex}: L1 table is not cluster aligned; snapshot table entry corrupted`,
        );
      } else if (fault === 'tooLarge') {
        findings.corruption(
          'snapshotTooLarge',
          `ERROR snapshot ${id} (${name}) l1_size=0x${hex(l1Entries)}: L1 table is too large; snapshot table entry corrupted`,
        );
      } else {
        const l1 = await this.#image.readTable(l1Offset, l1Entries * 8);
        await this.#countL1(l1Offset, l1, false, l1OffsetHex);
      }
    }
    this.#count(header.snapshotsOffset, lengthBytes);
  }

  #countEncryptionHeader(): void {
    const { extensions } = this.#image.header;
    const extension = findExtension(extensions, ExtensionType.fullDiskEncryption);
    if (extension === undefined || extension.data.length < 16) return;
    const { buffer, byteOffset } = extension.data;
    const view = new DataView(buffer, byteOffset, 16);
    this.#count(Number(view.getBigUint64(0)), Number(view.getBigUint64(8)));
  }

  async #countBitmaps(): Promise<void> {
    const directory = await readBitmaps(this.#image.file, this.#image.header);
    if (directory === undefined) return;
    const { clusterSize } = this.#image.geometry;
    this.#count(directory.directoryOffset, directory.directoryBytes);
    for (const { tableOffset, tableEntries } of directory.bitmaps) {
      this.#count(tableOffset, tableEntries * 8);
      const table = await readBitmapTable(this.#image, tableOffset, tableEntries);
      if (table === undefined) {
        this.#options.findings.counts.corruptions++;
        throw new CheckGivenUp('EINVAL');
      }
      for (let index = 0; index < tableEntries; index++) {
        const hostOffset = bitmapClusterOffset(table, index);
        if (hostOffset !== 0) this.#count(hostOffset, clusterSize);
      }
    }
  }

  #countRefcountBlocks(): void {
    const { geometry, refcountTable, refcountBlocks } = this.#image;
    const { findings, repairing } = this.#options;
    const { clusterSize } = geometry;
    for (let block = 0; block < refcountBlocks; block++) {
      const hostOffset = this.#image.refcountBlock(block);
      if ((refcountTable.getUint32(block * 8 + 4) & refcountReservedLow) !== 0) {
        this.rebuild = true;
        findings.corruption(
          'blockReserved',
          `ERROR refcount table entry ${block} has reserved bits set`,
        );
      } else if (!this.#image.isBlockAligned(block)) {
        this.rebuild = true;
        findings.corruption(
          'blockUnaligned',
          `ERROR refcount block ${block} is not cluster aligned; refcount table entry corrupted`,
        );
      } else if (hostOffset >= geometry.clusterEnd(this.#fileLength)) {
        this.#blockOutside(block, repairing);
      } else if (hostOffset !== 0) {
        this.#count(hostOffset, clusterSize);
        const references = this.found.get(hostOffset / clusterSize);
        if (references !== 1) {
          this.rebuild = true;
          findings.corruption(
            'blockShared',
            `ERROR refcount block ${block} refcount=${references}`,
          );
        }
      }
    }
  }

  /** A block that the file has no place for holds no counts, so all of them are written anew. */
  #blockOutside(block: number, repairing: boolean): void {
    const { findings } = this.#options;
    if (repairing) {
      this.rebuild = true;
      findings.repair('blockOutside', `Repairing refcount block ${block} is outside image`);
      findings.counts.corruptionsFixed++;
    } else {
      findings.corruption('blockOutside', `ERROR refcount block ${block} is outside image`);
    }
  }
}

/**
 * Refuses bitmaps that no program can open an image with, as QEMU does.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE for the first of them
 */
export async function refuseBrokenBitmaps(image: CheckedImage): Promise<void> {
  const { filename } = image.file;
  const refuse = (why: string): never => {
    throw cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, why);
  };
  const directory = await readBitmaps(image.file, image.header);
  for (const { name, inUse, tableOffset, tableEntries } of directory?.bitmaps ?? []) {
    if (tableOffset % image.geometry.clusterSize !== 0 || tableEntries > maxBitmapTableEntries) {
      refuse(`Bitmap '${printable(name)}' doesn't satisfy the constraints`);
    }
    // One that was in use is not read by anybody.
    if (inUse) continue;
    if ((await readBitmapTable(image, tableOffset, tableEntries)) === undefined) {
      refuse(
        `Could not read bitmap_table table from image for bitmap '${printable(name)}': Invalid argument`,
      );
    }
  }
}

/** The table of a bitmap, or undefined if it is none. */
async function readBitmapTable(
  image: CheckedImage,
  hostOffset: number,
  entries: number,
): Promise<DataView | undefined> {
  if (entries > maxBitmapTableEntries) return undefined;
  const table = await image.readTable(hostOffset, entries * 8);
  return isBitmapTable(table, image.geometry.clusterSize) ? table : undefined;
}

function isEmpty(l1: DataView, index: number): boolean {
  return l1.getUint32(index * 8) === 0 && l1.getUint32(index * 8 + 4) === 0;
}

function hex(value: number): string {
  return value.toString(16);
}
