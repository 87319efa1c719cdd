/** Checking one L2 table: counts what its entries refer to and judges the entries themselves. */
import { bigEndian, wordsOf } from './big-endian.js';
import { type Findings, entryHex } from './check-findings.js';
import type { Geometry } from './geometry.js';
import { ClusterKind, type L2EntryView } from './l2-entry.js';
import type { PackedCounts } from './packed-counts.js';

/** What a table is checked against. */
export interface L2CheckContext {
  readonly geometry: Geometry;
  readonly entries: L2EntryView;
  readonly externalData: boolean;
  /** Whether the table belongs to the active L1 table: only there COPIED flags and statistics count. */
  readonly active: boolean;
  readonly stored: PackedCounts;
  /** Whether the reference count of a host cluster could be read. */
  readonly isKnown: (cluster: number) => boolean;
  readonly findings: Findings;
  /**
   * Counts a reference to each cluster that a range of the file touches; `exact` is the offset in
   * hexadecimal, where it may be too large for a number.
   */
  readonly count: (hostOffset: number, length: number, exact?: string) => void;
}

const copiedHigh = 0x80000000;
const two32 = 0x100000000;
/** Bits 56 to 61 of an uncompressed entry, and 1 to 8 (0 too, when extended). */
const reservedHigh = 0x3f000000;
const reservedLow = 0x1fe;

/** Checks the L2 tables of one L1 table. */
export class L2Checker {
  readonly #context: L2CheckContext;
  /** Where the next data cluster would continue the last one, in bytes; 0 at a table's begin. */
  #contiguous = 0;

  constructor(context: L2CheckContext) {
    this.#context = context;
  }

  check(view: DataView): void {
    const { geometry } = this.#context;
    const { l2EntrySize, l2EntriesPerTable } = geometry;
    this.#contiguous = 0;
    const words = wordsOf(view);
    for (let index = 0; index < l2EntriesPerTable;) {
      const run = geometry.extendedL2 ? 0 : this.#plainRun(view, words, index);
      if (run > 0) {
        index += run;
      } else {
        this.#checkEntry(view, index * l2EntrySize);
        index++;
      }
    }
  }

  /**
   * Takes a run of plain entries at once: unallocated ones, or own clusters one after the other
   * that are all counted once. @returns its length in entries, 0 if there is none
   */
  #plainRun(view: DataView, words: Uint32Array, first: number): number {
    const { geometry, active, stored, findings, count, externalData } = this.#context;
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
    if (hostOffset === 0 || !stored.areAllOne(hostOffset / clusterSize, length)) return 0;
    count(hostOffset, length * clusterSize);
    findings.allocatedClusters += length;
    if (this.#contiguous !== 0 && this.#contiguous !== hostOffset) findings.fragmentedClusters++;
    this.#contiguous = hostOffset + length * clusterSize;
    return length;
  }

  #checkEntry(view: DataView, at: number): void {
    const { entries, findings } = this.#context;
    const kind = entries.kind(view, at);
    if (kind === ClusterKind.compressed) {
      this.#checkCompressed(view, at);
      return;
    }
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const reserved = reservedLow | (this.#context.geometry.extendedL2 ? 1 : 0);
    if ((high & reservedHigh) !== 0 || (low & reserved) !== 0) {
      findings.corruption(`ERROR found l2 entry with reserved bits set: ${entryHex(high, low)}`);
    }
    this.#checkBitmap(view, at, kind);
    if (kind === ClusterKind.normal || kind === ClusterKind.zeroAllocated) {
      this.#checkHost(view, at, kind);
    }
  }

  #checkHost(view: DataView, at: number, kind: ClusterKind): void {
    const { geometry, entries, findings, active, stored, count, externalData } = this.#context;
    const { clusterSize } = geometry;
    const hostOffset = entries.hostOffset(view, at);
    if (active) {
      findings.allocatedClusters++;
      if (this.#contiguous !== 0 && this.#contiguous !== hostOffset) findings.fragmentedClusters++;
      this.#contiguous = hostOffset + clusterSize;
    }
    if (!externalData) count(hostOffset, clusterSize);
    if (hostOffset % clusterSize !== 0) {
      const what = kind === ClusterKind.zeroAllocated ? 'Preallocated cluster' : 'Data cluster';
      findings.corruption(
        `ERROR offset=${hostOffset.toString(16)}: ${what} is not properly aligned; L2 entry corrupted.`,
      );
    }
    if (!active) return;
    const cluster = Math.floor(hostOffset / clusterSize);
    const references = externalData ? 1 : stored.get(cluster);
    if (!this.#context.isKnown(cluster)) return;
    if ((references === 1) !== entries.isCopied(view, at)) {
      const entry = entryHex(view.getUint32(at), view.getUint32(at + 4));
      findings.copiedCorruption(
        `ERROR OFLAG_COPIED data cluster: l2_entry=${entry} refcount=${references}`,
      );
    }
  }

  #checkCompressed(view: DataView, at: number): void {
    const { geometry, entries, findings, active, externalData, count } = this.#context;
    const hostOffset = entries.compressedOffset(view, at);
    const entry = entryHex(view.getUint32(at), view.getUint32(at + 4));
    const cluster = Math.floor(hostOffset / geometry.clusterSize);
    if (entries.isCopied(view, at)) {
      findings.corruption(
        `ERROR: coffset=0x${hostOffset.toString(16)}: copied flag must never be set for compressed clusters`,
      );
    }
    if (externalData) {
      findings.corruption(`ERROR compressed cluster ${cluster} with data file, entry=0x${entry}`);
      return;
    }
    if (
      geometry.extendedL2 &&
      (entries.allocatedBits(view, at) | entries.zeroBits(view, at)) !== 0
    ) {
      findings.corruption(
        `ERROR compressed cluster ${cluster} with non-zero subcluster allocation bitmap, entry=0x${entry}`,
      );
    }
    const exact = entries.compressedOffsetText(view, at);
    count(hostOffset, entries.compressedSize(view, at), exact);
    if (!active) return;
    findings.allocatedClusters++;
    findings.compressedClusters++;
    // Compressed clusters share sectors, so every one counts as a fragment.
    findings.fragmentedClusters++;
  }

  #checkBitmap(view: DataView, at: number, kind: ClusterKind): void {
    const { geometry, entries, findings } = this.#context;
    if (!geometry.extendedL2) return;
    const allocated = entries.allocatedBits(view, at);
    const zero = entries.zeroBits(view, at);
    if ((allocated & zero) === 0 && (allocated === 0 || kind === ClusterKind.normal)) return;
    const entry = entryHex(view.getUint32(at), view.getUint32(at + 4));
    findings.corruption(
      `ERROR offset=${entries.hostOffset(view, at).toString(16)}: Invalid subcluster allocation bitmap, entry=0x${entry}`,
    );
  }
}
