/** Checking one L2 table: counts what its entries refer to and judges the entries themselves. */
import { bigEndian, wordsOf } from '../../layout/big-endian.js';
import { entryHex } from '../findings/findings.js';
import type { FindingTopic } from '../findings/explanations.js';
import type { Geometry } from '../../layout/geometry.js';
import { ClusterKind, type L2EntryView } from '../../layout/l2-entry.js';

/** The counts in the file, as far as COPIED flags follow from them. */
export interface StoredOnes {
  /** Whether a cluster is counted once. */
  isOne(cluster: number): boolean;
  /** Whether each of consecutive clusters is counted once. */
  areAllOne(cluster: number, count: number): boolean;
}

/** Where findings about L2 tables go, and what is counted of their entries. */
export interface L2Findings {
  allocatedClusters: number;
  fragmentedClusters: number;
  compressedClusters: number;
  corruption(topic: FindingTopic, message: string): void;
  repair(topic: FindingTopic, message: string): void;
}

/** What a table is checked against. */
export interface L2CheckContext {
  readonly geometry: Geometry;
  readonly entries: L2EntryView;
  readonly externalData: boolean;
  /** Whether the table belongs to the active L1 table: only there COPIED flags and statistics count. */
  readonly active: boolean;
  readonly stored: StoredOnes;
  /** Whether the reference count of a host cluster could be read. */
  readonly isKnown: (cluster: number) => boolean;
  /** First cluster that begins beyond the end of the file, where `stored` says nothing. */
  readonly fileClusters: number;
  readonly findings: L2Findings;
  /** Receives the places that a repair takes away; undefined where nothing is repaired. */
  readonly droppable: DroppablePlace[] | undefined;
  /**
   * Counts a reference to each cluster that a range of the file touches; `exact` is the offset in
   * hexadecimal, where it may be too large for a number.
   */
  readonly count: (hostOffset: number, length: number, exact?: string) => void;
}

/** An entry whose impossible place a repair takes away, as it keeps no data there. */
export interface DroppablePlace {
  /** Host offset in bytes of its L2 table, and the entry's position in it. */
  readonly tableOffset: number;
  readonly at: number;
}

/** Most places that one repair takes away. */
const maxDroppable = 1_000_000;

const copiedHigh = 0x80000000;
const two32 = 0x100000000;
/** Bits 56 to 61 of an uncompressed entry, and 1 to 8. */
const reservedHigh = 0x3f000000;
const reservedLow = 0x1fe;

/** Checks the L2 tables of one L1 table. */
export class L2Checker {
  readonly #context: L2CheckContext;
  /** Where the next data cluster would continue the last one, in bytes; 0 at a table's begin. */
  #contiguous = 0;
  #copiedSuspect = false;

  constructor(context: L2CheckContext) {
    this.#context = context;
  }

  /** Whether some COPIED flag contradicted the counts in the file since this was last asked. */
  takeCopiedSuspect(): boolean {
    const suspect = this.#copiedSuspect;
    this.#copiedSuspect = false;
    return suspect;
  }

  /** @param tableOffset host offset in bytes that the table was read from */
  check(view: DataView, tableOffset: number): void {
    const { geometry } = this.#context;
    const { l2EntrySize, l2EntriesPerTable } = geometry;
    this.#contiguous = 0;
    const words = wordsOf(view);
    for (let index = 0; index < l2EntriesPerTable;) {
      const run = geometry.extendedL2 ? 0 : this.#plainRun(view, words, index);
      if (run > 0) {
        index += run;
      } else {
        this.#checkEntry(view, index * l2EntrySize, tableOffset);
        index++;
      }
    }
  }

  /**
   * Takes a run of plain entries at once: unallocated ones, or own clusters one after the other
   * that are all counted once. @returns its length in entries, 0 if there is none
   */
  #plainRun(view: DataView, words: Uint32Array, first: number): number {
    const { geometry, active, stored, fileClusters, findings, count, externalData } = this.#context;
    const { clusterSize, l2EntriesPerTable } = geometry;
    const high = view.getUint32(first * 8);
    const low = view.getUint32(first * 8 + 4);
    const end = l2EntriesPerTable * 2;
    let at = first * 2 + 2;
    if (high === 0 && low === 0) {
      while (at < end && words[at] === 0 && words[at + 1] === 0) at += 2;
      return at / 2 - first;
    }
    if (high < copiedHigh || (high & (0x40000000 | reservedHigh)) !== 0 || externalData) return 0;
    if (low % clusterSize !== 0 || !active) return 0;
    const highWord = bigEndian(high);
    // Up to where the low half of the offset would overflow.
    const last = Math.min(end, first * 2 + 2 * ((two32 - low) / clusterSize));
    let next = (low + clusterSize) | 0;
    while (at < last && words[at] === highWord && bigEndian(words[at + 1]) === next >>> 0) {
      at += 2;
      next = (next + clusterSize) | 0;
    }
    const length = at / 2 - first;
    const hostOffset = (high - copiedHigh) * two32 + low;
    const cluster = hostOffset / clusterSize;
    if (cluster === 0 || cluster + length > fileClusters) return 0;
    if (!stored.areAllOne(cluster, length)) return 0;
    count(hostOffset, length * clusterSize);
    findings.allocatedClusters += length;
    if (this.#contiguous !== 0 && this.#contiguous !== hostOffset) findings.fragmentedClusters++;
    this.#contiguous = hostOffset + length * clusterSize;
    return length;
  }

  #checkEntry(view: DataView, at: number, tableOffset: number): void {
    const { entries, findings, geometry } = this.#context;
    const kind = entries.kind(view, at);
    if (kind === ClusterKind.compressed) {
      this.#checkCompressed(view, at);
      return;
    }
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if ((high & reservedHigh) !== 0 || (low & reservedLow) !== 0) {
      findings.corruption(
        'l2Reserved',
        `ERROR found l2 entry with reserved bits set: ${entryHex(high, low)}`,
      );
    }
    if (kind === ClusterKind.normal || kind === ClusterKind.zeroAllocated) {
      this.#checkHost(view, at, tableOffset, kind);
    } else if (geometry.extendedL2 && entries.allocatedBits(view, at) !== 0) {
      findings.corruption(
        'subclusterUnallocated',
        'ERROR: Unallocated cluster has non-zero subcluster allocation map',
      );
    }
  }

  #checkHost(view: DataView, at: number, tableOffset: number, kind: ClusterKind): void {
    const { geometry, entries, findings, active, stored, count, externalData } = this.#context;
    const { clusterSize, extendedL2 } = geometry;
    const hostOffset = entries.hostOffset(view, at);
    const offset = hostOffset.toString(16);
    if (extendedL2 && (entries.allocatedBits(view, at) & entries.zeroBits(view, at)) !== 0) {
      const fact = `offset=${offset}: Allocated cluster has corrupted subcluster allocation bitmap`;
      findings.corruption('subclusterBitmap', `ERROR ${fact}`);
    }
    if (hostOffset % clusterSize !== 0 && this.#unaligned(view, at, tableOffset, kind)) return;
    if (active) {
      findings.allocatedClusters++;
      if (this.#contiguous !== 0 && this.#contiguous !== hostOffset) findings.fragmentedClusters++;
      this.#contiguous = hostOffset + clusterSize;
    }
    if (!externalData) count(hostOffset, clusterSize);
    if (!active) return;
    const cluster = Math.floor(hostOffset / clusterSize);
    const isOwn = externalData || stored.isOne(cluster);
    if (!this.#context.isKnown(cluster)) return;
    const isBeyond = cluster >= this.#context.fileClusters;
    if (isOwn !== entries.isCopied(view, at) || isBeyond) this.#copiedSuspect = true;
  }

  /** A misaligned entry. @returns whether a repair takes its place away, which loses nothing */
  #unaligned(view: DataView, at: number, tableOffset: number, kind: ClusterKind): boolean {
    const { geometry, entries, findings } = this.#context;
    const offset = entries.hostOffset(view, at).toString(16);
    const hasData = geometry.extendedL2
      ? entries.allocatedBits(view, at) !== 0
      : kind === ClusterKind.normal;
    if (hasData) {
      findings.corruption(
        'dataUnaligned',
        `ERROR offset=${offset}: Data cluster is not properly aligned; L2 entry corrupted.`,
      );
      return false;
    }
    const fact = `offset=${offset}: Preallocated cluster is not properly aligned; L2 entry corrupted.`;
    if (this.#willDrop(tableOffset, at)) {
      findings.repair('zeroUnaligned', `Repairing ${fact}`);
      return true;
    }
    findings.corruption('zeroUnaligned', `ERROR ${fact}`);
    return false;
  }

  /** Notes an entry whose place is to be taken away. @returns false where nothing is repaired */
  #willDrop(tableOffset: number, at: number): boolean {
    const { droppable } = this.#context;
    if (droppable === undefined || droppable.length >= maxDroppable) return false;
    droppable.push({ tableOffset, at });
    return true;
  }

  #checkCompressed(view: DataView, at: number): void {
    const { geometry, entries, findings, active, externalData, count } = this.#context;
    const hostOffset = entries.compressedOffset(view, at);
    const isCopied = entries.isCopied(view, at);
    const high = isCopied ? view.getUint32(at) - copiedHigh : view.getUint32(at);
    const entry = entryHex(high, view.getUint32(at + 4));
    if (isCopied) {
      const offset = entries.compressedOffsetText(view, at);
      findings.corruption(
        'compressedCopied',
        `ERROR: coffset=0x${offset}: copied flag must never be set for compressed clusters`,
      );
    }
    const index = at / geometry.l2EntrySize;
    if (externalData) {
      findings.corruption(
        'compressedExternal',
        `ERROR compressed cluster ${index} with data file, entry=0x${entry}`,
      );
      return;
    }
    if (
      geometry.extendedL2 &&
      (entries.allocatedBits(view, at) !== 0 || entries.zeroBits(view, at) !== 0)
    ) {
      findings.corruption(
        'compressedBitmap',
        `ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, entry=0x${entry}`,
      );
      return;
    }
    const exact = entries.compressedOffsetText(view, at);
    count(hostOffset, entries.compressedSize(view, at), exact);
    if (!active) return;
    findings.allocatedClusters++;
    findings.compressedClusters++;
    // Compressed clusters share sectors, so every one counts as a fragment.
    findings.fragmentedClusters++;
  }
}
