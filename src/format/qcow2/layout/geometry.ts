/**
 * Numbers that follow from a qcow2 header and never change while the image is open: sizes of
 * clusters, tables and slices, and the arithmetic between guest offsets and table indices.
 */

import { maxOffset } from '../../../limits.js';

declare const space: unique symbol;

/** A place on the virtual disk, in bytes. */
export type GuestOffset = number & { readonly [space]: 'guest' };

/** A place in the image file, or in an external data file, in bytes. */
export type HostOffset = number & { readonly [space]: 'host' };

/** A cluster of the image file, counted from its begin; reference counts go by it. */
export type ClusterIndex = number & { readonly [space]: 'cluster' };

/** Takes a number of bytes for a place on the virtual disk; places are numbers, marked for the compiler. */
export function asGuestOffset(bytes: number): GuestOffset {
  return bytes as GuestOffset;
}

/** Takes a number of bytes for a place in the file. */
export function asHostOffset(bytes: number): HostOffset {
  return bytes as HostOffset;
}

/** Takes a number for that of a cluster of the file. */
export function asClusterIndex(number: number): ClusterIndex {
  return number as ClusterIndex;
}

/** The place that lies so far after another one (or before, if negative): bytes, or clusters. */
export function after<Place extends GuestOffset | HostOffset | ClusterIndex>(
  place: Place,
  distance: number,
): Place {
  return (place + distance) as Place;
}

/** What the geometry is computed from. */
export interface GeometrySource {
  readonly clusterBits: number;
  /** log2 of the width of a reference count in bits; the only thing that may come to be another. */
  readonly refcountOrder: number;
  readonly extendedL2: boolean;
}

const preferredSliceSize = 4096;
const subclustersPerExtendedEntry = 32;

/** Derived sizes; all in bytes unless the name says otherwise. */
export class Geometry {
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly extendedL2: boolean;
  /** Bytes of one L2 entry: 8, or 16 when extended. */
  readonly l2EntrySize: number;
  readonly l2EntriesPerTable: number;
  readonly sliceSize: number;
  readonly l2EntriesPerSlice: number;
  /** Slices of one L2 table or refcount block. */
  readonly slicesPerTable: number;
  readonly subclustersPerCluster: number;
  readonly subclusterSize: number;
  /** Guest bytes that one L2 slice, and one L2 table, map. */
  readonly sliceReach: number;
  readonly tableReach: number;
  /** Shift of the sector count in a compressed entry (specification, "Compressed Clusters"). */
  readonly compressedSizeShift: number;
  readonly #source: GeometrySource;

  constructor(source: GeometrySource) {
    this.#source = source;
    this.clusterBits = source.clusterBits;
    this.clusterSize = 2 ** source.clusterBits;
    this.extendedL2 = source.extendedL2;
    this.l2EntrySize = source.extendedL2 ? 16 : 8;
    this.l2EntriesPerTable = this.clusterSize / this.l2EntrySize;
    this.sliceSize = Math.min(this.clusterSize, preferredSliceSize);
    this.l2EntriesPerSlice = this.sliceSize / this.l2EntrySize;
    this.slicesPerTable = this.clusterSize / this.sliceSize;
    this.subclustersPerCluster = source.extendedL2 ? subclustersPerExtendedEntry : 1;
    this.subclusterSize = this.clusterSize / this.subclustersPerCluster;
    this.sliceReach = this.l2EntriesPerSlice * this.clusterSize;
    this.tableReach = this.l2EntriesPerTable * this.clusterSize;
    this.compressedSizeShift = 62 - (source.clusterBits - 8);
  }

  /** log2 of the width of a reference count in bits. */
  get refcountOrder(): number {
    return this.#source.refcountOrder;
  }

  get refcountBits(): number {
    return 1 << this.refcountOrder;
  }

  get refcountsPerBlock(): number {
    return (this.clusterSize * 8) >> this.refcountOrder;
  }

  get refcountsPerSlice(): number {
    return (this.sliceSize * 8) >> this.refcountOrder;
  }

  /** Largest storable reference count, at most 2^53 - 1. */
  get maxRefcount(): number {
    return Math.min(2 ** this.refcountBits - 1, Number.MAX_SAFE_INTEGER);
  }

  /** Entries of an L1 table for a disk of `size` bytes. */
  l1Entries(size: number): number {
    return Math.ceil(size / this.tableReach);
  }

  /** Clusters that hold `bytes` bytes. */
  clusters(bytes: number): number {
    return Math.ceil(bytes / this.clusterSize);
  }

  /** Bytes from the begin of its cluster to an offset. */
  within(offset: number): number {
    // Offsets exceed 32 bits, and dividing them is far quicker than their remainder.
    return offset - Math.floor(offset / this.clusterSize) * this.clusterSize;
  }

  /** Whether a cluster can lie at a host offset: on a boundary, and all of it where numbers are exact. */
  canHoldCluster(hostOffset: HostOffset): boolean {
    return this.within(hostOffset) === 0 && hostOffset <= maxOffset - this.clusterSize;
  }

  /** Index in its L2 slice of the entry that maps a guest offset. */
  entryInSlice(guestOffset: GuestOffset): number {
    const slice = Math.floor(guestOffset / this.sliceReach) * this.sliceReach;
    return Math.floor((guestOffset - slice) / this.clusterSize);
  }

  /** `offset` rounded down to a cluster boundary. */
  clusterStart<Offset extends GuestOffset | HostOffset>(offset: Offset): Offset {
    return after(offset, -this.within(offset));
  }

  /** `offset` rounded up to a cluster boundary. */
  clusterEnd(offset: number): number {
    return this.clusters(offset) * this.clusterSize;
  }

  /** The cluster of the file that a host offset lies in. */
  clusterAt(hostOffset: HostOffset): ClusterIndex {
    return Math.floor(hostOffset / this.clusterSize) as ClusterIndex;
  }

  /** The first cluster of those that a refcount block, by its number, counts. */
  firstCounted(block: number): ClusterIndex {
    return (block * this.refcountsPerBlock) as ClusterIndex;
  }

  /** Where a cluster of the file begins. */
  startOf(cluster: ClusterIndex): HostOffset {
    return (cluster * this.clusterSize) as HostOffset;
  }
}
