/** The header of a Parallels expandable image (QEMU's docs/interop/parallels): from bytes to facts. */
import { maxOffset, maxParallelsCatalogEntries, maxParallelsClusterSectors } from '../../limits.js';
import { invalidImage } from '../failures.js';

/** Bytes of the header; the catalog follows it. */
export const parallelsHeaderBytes = 64;

const sectorSize = 512;
const version = 2;

/** What the header says; bytes, if nothing else is said. */
export interface ParallelsHeader {
  readonly size: number;
  /** Of a cluster: whole sectors, and not always a power of two. */
  readonly clusterBytes: number;
  /** What the offsets in the catalog are counted in. */
  readonly offsetUnit: number;
  /** Entries of the catalog; the disk may be larger than they reach. */
  readonly catalogEntries: number;
  /** Where data begin; 0 where an old image does not say. */
  readonly dataOffset: number;
  /** Whether the program that wrote to it last has not closed it. */
  readonly isInUse: boolean;
  /** Whether it is of the older kind, whose offsets are counted in sectors. */
  readonly isOld: boolean;
}

/** Where in the header words lie that a repair changes. */
export const parallelsWord = { inUse: 44, dataOffset: 48 } as const;

/** The word of an image that is in use. */
const inUse = 0x746f6e59;

/**
 * Parses a header. An image that its writer did not close is read as it is, as QEMU does.
 *
 * @param bytes `parallelsHeaderBytes` of them, zeroes beyond the end of the file
 * @throws ERR_COWHERD_INVALID_IMAGE
 */
export function decodeParallelsHeader(bytes: Uint8Array, filename: string): ParallelsHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = Buffer.from(bytes.subarray(0, 16)).toString('latin1');
  const isOld = magic === 'WithoutFreeSpace';
  if ((!isOld && magic !== 'WithouFreSpacExt') || view.getUint32(16, true) !== version) {
    throw invalidImage(filename, 'Image not in Parallels format');
  }
  const clusterSectors = view.getUint32(28, true);
  if (clusterSectors === 0) throw invalidImage(filename, 'Invalid image: Zero sectors per track');
  if (clusterSectors > maxParallelsClusterSectors) {
    throw invalidImage(filename, 'Invalid image: Too big cluster');
  }
  const catalogEntries = view.getUint32(32, true);
  if (catalogEntries > maxParallelsCatalogEntries)
    throw invalidImage(filename, 'Catalog too large');
  // Old images count sectors in 32 bits, whatever follows those.
  const sectors = view.getUint32(36, true) + (isOld ? 0 : view.getUint32(40, true) * 2 ** 32);
  if (sectors * sectorSize > maxOffset) throw invalidImage(filename, 'File too large');
  const clusterBytes = clusterSectors * sectorSize;
  return {
    size: sectors * sectorSize,
    clusterBytes,
    offsetUnit: isOld ? sectorSize : clusterBytes,
    catalogEntries,
    dataOffset: view.getUint32(parallelsWord.dataOffset, true) * sectorSize,
    isInUse: view.getUint32(parallelsWord.inUse, true) === inUse,
    isOld,
  };
}

/**
 * Host offset in bytes where data begin: what the header says if that can be, behind the catalog and within
 * the file; else the first place behind the catalog.
 */
export function parallelsDataOffset(header: ParallelsHeader, fileLength: number): number {
  const { catalogEntries, clusterBytes, dataOffset, isOld } = header;
  const unit = isOld ? sectorSize : clusterBytes;
  const least = Math.ceil((parallelsHeaderBytes + catalogEntries * 4) / unit) * unit;
  return dataOffset < least || dataOffset > fileLength ? least : dataOffset;
}
