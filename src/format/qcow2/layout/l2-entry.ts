/**
 * Entries of L2 tables, standard and extended behind one view (specification, "Standard Cluster
 * Descriptor", "Compressed Clusters Descriptor", "Extended L2 Entries").
 *
 * Functions take the view of table bytes and the byte position of an entry in it. Entries are
 * handled as two 32-bit halves, so that no 64-bit integer is made on the hot path.
 */
import assert from 'node:assert/strict';
import { type Geometry, type HostOffset, asHostOffset } from './geometry.js';

const copiedHigh = 0x80000000;
const compressedHigh = 0x40000000;
const offsetHighMask = 0x00ffffff;
const offsetLowMask = 0xfffffe00;
const zeroLow = 1;
const two32 = 0x100000000;
const allSubclusters = 0xffffffff;
const sectorSize = 512;

/** What an entry says of its cluster, subclusters aside. */
export const ClusterKind = {
  unallocated: 0,
  /** Reads as zeroes, has no host cluster. */
  zeroPlain: 1,
  /** Reads as zeroes, keeps a host cluster. */
  zeroAllocated: 2,
  /** Stored in a host cluster; with extended entries the subclusters tell which part. */
  normal: 3,
  compressed: 4,
} as const;

export type ClusterKind = (typeof ClusterKind)[keyof typeof ClusterKind];

/** A host cluster's place and how its subclusters stand. */
export class L2EntryView {
  readonly #geometry: Geometry;
  readonly #externalData: boolean;
  readonly #compressedShift: number;

  constructor(geometry: Geometry, externalData: boolean) {
    this.#geometry = geometry;
    this.#externalData = externalData;
    this.#compressedShift = geometry.compressedSizeShift - 32;
  }

  /** The kind of the cluster that an entry describes. */
  kind(view: DataView, at: number): ClusterKind {
    const high = view.getUint32(at);
    if ((high & compressedHigh) !== 0) return ClusterKind.compressed;
    const low = view.getUint32(at + 4);
    const hasOffset = (high & offsetHighMask) !== 0 || (low & offsetLowMask) !== 0;
    if (!this.#geometry.extendedL2 && (low & zeroLow) !== 0) {
      return hasOffset ? ClusterKind.zeroAllocated : ClusterKind.zeroPlain;
    }
    // At the begin of a data file only the flag tells that there is a cluster.
    const hasHost = hasOffset || (this.#externalData && (high & copiedHigh) !== 0);
    return hasHost ? ClusterKind.normal : ClusterKind.unallocated;
  }

  /** Whether the COPIED flag says that the host cluster has exactly one reference. */
  isCopied(view: DataView, at: number): boolean {
    return (view.getUint32(at) & copiedHigh) !== 0;
  }

  /** Host offset in bytes of an uncompressed entry; may exceed 2^53 in a corrupt image. */
  hostOffset(view: DataView, at: number): HostOffset {
    const high = view.getUint32(at) & offsetHighMask;
    return asHostOffset(high * two32 + ((view.getUint32(at + 4) & offsetLowMask) >>> 0));
  }

  /** Host offset in bytes where a compressed cluster's data begin. */
  compressedOffset(view: DataView, at: number): HostOffset {
    const high = view.getUint32(at) & ((1 << this.#compressedShift) - 1);
    return asHostOffset(high * two32 + view.getUint32(at + 4));
  }

  /** The same in hexadecimal, exact also beyond 2^53. */
  compressedOffsetText(view: DataView, at: number): string {
    const high = view.getUint32(at) & ((1 << this.#compressedShift) - 1);
    const low = view.getUint32(at + 4).toString(16);
    return high === 0 ? low : high.toString(16) + low.padStart(8, '0');
  }

  /** Bytes from a compressed cluster's data begin to the end of the last sector they touch. */
  compressedSize(view: DataView, at: number): number {
    const sectors = (view.getUint32(at) & ~(copiedHigh | compressedHigh)) >>> this.#compressedShift;
    return (sectors + 1) * sectorSize - (view.getUint32(at + 4) % sectorSize);
  }

  /** Bitmap of allocated subclusters, as an unsigned 32-bit number. */
  allocatedBits(view: DataView, at: number): number {
    return view.getUint32(at + 12);
  }

  /** Bitmap of subclusters that read as zeroes, as an unsigned 32-bit number. */
  zeroBits(view: DataView, at: number): number {
    return view.getUint32(at + 8);
  }

  /** Makes an entry point at a host cluster of its own, all of whose content is written. */
  setNormal(view: DataView, at: number, hostOffset: HostOffset): void {
    this.#setHost(view, at, hostOffset);
    if (this.#geometry.extendedL2) this.#setBits(view, at, allSubclusters, 0);
  }

  /**
   * Makes an extended entry point at a host cluster of its own in which the subclusters of a mask
   * are written; the others stay as they are.
   */
  setSubclusters(view: DataView, at: number, hostOffset: HostOffset, written: number): void {
    const allocated = this.allocatedBits(view, at) | written;
    const zero = this.zeroBits(view, at) & ~written;
    this.#setHost(view, at, hostOffset);
    this.#setBits(view, at, allocated, zero);
  }

  /** Makes an extended entry point at a host cluster of its own, none of whose content is valid. */
  setPreallocated(view: DataView, at: number, hostOffset: HostOffset): void {
    this.#setHost(view, at, hostOffset);
    this.#setBits(view, at, 0, 0);
  }

  /** Makes subclusters of an extended entry read as zeroes, keeping its host cluster. */
  setZeroSubclusters(view: DataView, at: number, mask: number): void {
    this.#setBits(view, at, this.allocatedBits(view, at) & ~mask, this.zeroBits(view, at) | mask);
  }

  /** Makes the whole cluster read as zeroes; `keepHost` keeps the host cluster and COPIED flag. */
  setZero(view: DataView, at: number, keepHost: boolean): void {
    const extended = this.#geometry.extendedL2;
    const high = keepHost ? view.getUint32(at) : 0;
    const low = keepHost ? view.getUint32(at + 4) : 0;
    view.setUint32(at, high);
    view.setUint32(at + 4, extended ? low : (low | zeroLow) >>> 0);
    if (extended) this.#setBits(view, at, 0, allSubclusters);
  }

  /**
   * Takes away an entry's host cluster, whose content is lost: what was stored in it reads as zeroes,
   * and subclusters that were not stay as they are.
   */
  dropHost(view: DataView, at: number): void {
    const extended = this.#geometry.extendedL2;
    view.setUint32(at, 0);
    view.setUint32(at + 4, extended ? 0 : zeroLow);
    if (extended)
      this.#setBits(view, at, 0, this.zeroBits(view, at) | this.allocatedBits(view, at));
  }

  /** Makes an entry unallocated. */
  clear(view: DataView, at: number): void {
    view.setUint32(at, 0);
    view.setUint32(at + 4, 0);
    if (this.#geometry.extendedL2) this.#setBits(view, at, 0, 0);
  }

  /** Makes an entry point at compressed data of `lengthBytes` bytes at a host offset in bytes. */
  setCompressed(view: DataView, at: number, hostOffset: HostOffset, lengthBytes: number): void {
    const last = hostOffset + lengthBytes - 1;
    const sectors = Math.floor(last / sectorSize) - Math.floor(hostOffset / sectorSize);
    const high = Math.floor(hostOffset / two32) + sectors * 2 ** this.#compressedShift;
    view.setUint32(at, compressedHigh + high);
    view.setUint32(at + 4, hostOffset % two32);
    if (this.#geometry.extendedL2) this.#setBits(view, at, 0, 0);
  }

  /** Mask of the subclusters that `length` bytes from `start` within a cluster touch. */
  subclusterMask(start: number, length: number): number {
    const size = this.#geometry.subclusterSize;
    const first = Math.floor(start / size);
    const end = Math.ceil((start + length) / size);
    const count = end - first;
    return count >= 32 ? allSubclusters : ((2 ** count - 1) * 2 ** first) >>> 0;
  }

  #setHost(view: DataView, at: number, hostOffset: HostOffset): void {
    assert(this.#geometry.within(hostOffset) === 0, 'an entry would point into a cluster');
    view.setUint32(at, copiedHigh + Math.floor(hostOffset / two32));
    view.setUint32(at + 4, hostOffset % two32);
  }

  #setBits(view: DataView, at: number, allocated: number, zero: number): void {
    view.setUint32(at + 8, zero >>> 0);
    view.setUint32(at + 12, allocated >>> 0);
  }
}
