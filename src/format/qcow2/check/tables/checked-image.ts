/**
 * What a check looks at: the tables of an image as they stand in the file, read around every cache,
 * and the few ways in which a repair may change them.
 */
import { maxOffset } from '../../../../limits.js';
import type { StorageFile } from '../../../../storage/storage.js';
import { type HostOffset, Geometry, asHostOffset } from '../../layout/geometry.js';
import { changeHeaderSector } from '../../tables/live-header.js';
import { type Qcow2Header, Incompatible } from '../../layout/header.js';
import { L2EntryView } from '../../layout/l2-entry.js';

const two32 = 0x100000000;
const l1OffsetHigh = 0x00ffffff;
const offsetLow = 0xfffffe00;
const refcountTableAt = 48;
const snapshotsAt = 60;
const incompatibleAt = 76;
const autoclearAt = 88;

/** An image under check. The header and the refcount table follow what a repair changes. */
export class CheckedImage {
  readonly geometry: Geometry;
  readonly entries: L2EntryView;
  /** Whether guest data lie in another file. */
  readonly externalData: boolean;
  /** The active L1 table. */
  l1: DataView = emptyTable;
  refcountTable: DataView = emptyTable;

  constructor(
    readonly file: StorageFile,
    public header: Qcow2Header,
  ) {
    const has = (bit: number): boolean => (header.incompatibleFeatures & bit) !== 0;
    this.geometry = new Geometry({
      clusterBits: header.clusterBits,
      refcountOrder: header.refcountOrder,
      extendedL2: has(Incompatible.extendedL2),
    });
    this.externalData = has(Incompatible.externalDataFile);
    this.entries = new L2EntryView(this.geometry, this.externalData);
  }

  /** Reads the tables that the header points at. */
  async load(): Promise<void> {
    const { l1TableOffset, l1Entries, refcountTableOffset, refcountTableClusters } = this.header;
    this.l1 = await this.readTable(l1TableOffset, l1Entries * 8);
    const refcountTableBytes = refcountTableClusters * this.geometry.clusterSize;
    this.refcountTable = await this.readTable(refcountTableOffset, refcountTableBytes);
  }

  /** Reads a table; what lies beyond the file reads as zeroes. */
  async readTable(hostOffset: number, lengthBytes: number): Promise<DataView> {
    const bytes = new Uint8Array(lengthBytes);
    if (lengthBytes > 0 && hostOffset <= maxOffset - lengthBytes)
      await this.file.read(bytes, hostOffset);
    return new DataView(bytes.buffer);
  }

  /** Number of refcount blocks that the refcount table could point at. */
  get refcountBlocks(): number {
    return this.refcountTable.byteLength / 8;
  }

  /** Host offset in bytes of a refcount block, 0 if there is none; reserved bits are left out. */
  refcountBlock(index: number): HostOffset {
    const high = this.refcountTable.getUint32(index * 8);
    const low = (this.refcountTable.getUint32(index * 8 + 4) & offsetLow) >>> 0;
    return asHostOffset(high * two32 + low);
  }

  /** Whether a refcount block lies on a cluster's begin, exact also where no number holds its offset. */
  isBlockAligned(index: number): boolean {
    const low = (this.refcountTable.getUint32(index * 8 + 4) & offsetLow) >>> 0;
    return low % this.geometry.clusterSize === 0;
  }

  /** Makes the header point at another refcount table, which is durable already. */
  async moveRefcountTable(hostOffset: number, table: DataView): Promise<void> {
    const clusters = table.byteLength / this.geometry.clusterSize;
    await changeHeaderSector(this.file, (sector) => {
      sector.setBigUint64(refcountTableAt, BigInt(hostOffset));
      sector.setUint32(refcountTableAt + 8, clusters);
    });
    this.header = {
      ...this.header,
      refcountTableOffset: hostOffset,
      refcountTableClusters: clusters,
    };
    this.refcountTable = table;
  }

  /** Makes the header point at another snapshot table, which is durable already. */
  async moveSnapshots(hostOffset: number, count: number): Promise<void> {
    await changeHeaderSector(this.file, (sector) => {
      sector.setUint32(snapshotsAt, count);
      sector.setBigUint64(snapshotsAt + 4, BigInt(hostOffset));
    });
    this.header = { ...this.header, snapshotsOffset: hostOffset, snapshotCount: count };
  }

  /** Clears autoclear bits that mean nothing here, as whoever changes an image has to. */
  async clearUnknownAutoclear(): Promise<void> {
    if (!this.header.hasUnknownAutoclear) return;
    await changeHeaderSector(this.file, (sector) => {
      sector.setUint32(autoclearAt, 0);
      sector.setUint32(autoclearAt + 4, this.header.autoclearFeatures);
    });
    this.header = { ...this.header, hasUnknownAutoclear: false };
  }

  /** Clears the dirty and the corrupt bit, durably. */
  async markClean(): Promise<void> {
    const { incompatibleFeatures } = this.header;
    const cleared = incompatibleFeatures & ~(Incompatible.dirty | Incompatible.corrupt);
    await this.file.flush();
    if (this.header.version !== 3 || cleared === incompatibleFeatures) return;
    await changeHeaderSector(this.file, (sector) => {
      sector.setUint32(incompatibleAt, cleared);
    });
    this.header = { ...this.header, incompatibleFeatures: cleared };
  }
}

const emptyTable = new DataView(new ArrayBuffer(0));

/** Host offset in bytes of the L2 table that an L1 entry points at, 0 if at none. */
export function l2TableOffset(l1: DataView, index: number): HostOffset {
  const high = l1.getUint32(index * 8) & l1OffsetHigh;
  return asHostOffset(high * two32 + ((l1.getUint32(index * 8 + 4) & offsetLow) >>> 0));
}
