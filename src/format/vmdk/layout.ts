/** What is read of a VMDK image when it is opened: the extents that the disk consists of, as plain data. */
import type { MappedLayout } from '../mapped/mapping.js';

/** Bytes of a sector, in which the format counts. */
export const sectorBytes = 512;

/** Bytes of the disk that another file, or a part of it, holds as they are. */
export interface FlatExtent {
  readonly kind: 'flat';
  /** Bytes. */
  readonly length: number;
  /** Host offset in bytes. */
  readonly offset: number;
}

/** Bytes of the disk that are zeroes and lie nowhere. */
export interface ZeroExtent {
  readonly kind: 'zero';
  /** Bytes. */
  readonly length: number;
}

/** A grain directory, which says where the grain tables lie; each of them says where its grains lie. */
interface GrainDirectory {
  /** Bytes of the disk, which the directory need not cover. */
  readonly length: number;
  /** Bytes of the disk that one entry of a table is about. */
  readonly grainBytes: number;
  /** Entries of one table. */
  readonly tableEntries: number;
  /** Host offset in bytes, a multiple of a sector. */
  readonly directoryOffset: number;
  readonly directoryEntries: number;
}

/** An extent with 32-bit tables: a hosted sparse extent, or a COWD extent. */
export interface SparseExtent extends GrainDirectory {
  readonly kind: 'sparse';
  /** Whether the entry 1 means a grain of zeroes. */
  readonly hasZeroedGrains: boolean;
  /** Whether grains are compressed, and if so whether each begins with a marker, which has its length. */
  readonly compression: 'none' | 'marked' | 'unmarked';
}

/** An extent with the 64-bit tables of ESXi's space-efficient disks. */
export interface SeSparseExtent extends GrainDirectory {
  readonly kind: 'seSparse';
  /** Host offset in bytes of table 0, which the others follow. */
  readonly tablesOffset: number;
  /** Host offset in bytes of grain 0, which the others follow. */
  readonly grainsOffset: number;
}

/** An extent, wherever it lies in the disk. */
export type ExtentContent = FlatExtent | ZeroExtent | SparseExtent | SeSparseExtent;

/** Where an extent belongs. */
export interface Placement {
  /** Guest offset in bytes. */
  readonly start: number;
  /** The image's file that holds it, counted as `Place` does; 0 for one that lies nowhere. */
  readonly file: number;
  /** As the descriptor calls it; empty where no descriptor does. */
  readonly type: string;
}

/** An extent of the disk. */
export type VmdkExtent = ExtentContent & Placement;

/** An extent that has tables. */
export type TabledExtent = Extract<VmdkExtent, { readonly grainBytes: number }>;

/** A part of the image's own file, in bytes. */
export interface DescriptorPlace {
  readonly offset: number;
  readonly length: number;
}

/** The layout. */
export interface VmdkLayout extends MappedLayout {
  /** Changed by every session that writes to the disk. */
  readonly cid: number;
  /** The `cid` that the image below has to have; `noParent` if there is none. */
  readonly parentCid: number;
  readonly createType: string;
  /** Where the image's own file has its descriptor; undefined where it has none. */
  readonly descriptor: DescriptorPlace | undefined;
  /** In guest order, without gaps. */
  readonly extents: readonly VmdkExtent[];
}
