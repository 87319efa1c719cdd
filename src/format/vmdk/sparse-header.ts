/**
 * Headers of sparse extents with 32-bit tables: hosted ones (VMware's Virtual Disk Format 5.0, "Hosted
 * Sparse Extents" and "Stream-Optimized Compressed Sparse Extents") and COWD extents of ESX ("ESXi Host
 * Sparse Extents").
 */
import {
  maxChunkBytes,
  maxOffset,
  maxVmdkDirectoryEntries,
  maxVmdkGrainBytes,
  maxVmdkTableEntries,
} from '../../limits.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { type SparseExtent, sectorBytes } from './layout.js';

/** The first four bytes of a hosted sparse extent: KDMV. */
export const hostedMagic = 0x4b444d56;
/** The first four bytes of a COWD extent. */
export const cowdMagic = 0x434f5744;

/** Newest version of hosted extents: it tells of changed blocks, which readers need not know. */
const newestVersion = 3;
const newlineFlag = 1;
const spareDirectoryFlag = 2;
const zeroedGrainsFlag = 4;
const compressedFlag = 1 << 16;
const markersFlag = 1 << 17;
const deflate = 1;
/** Entries of a grain table of COWD extents. */
const cowdTableEntries = 4096;
const footerMarker = 3;
const endMarker = 0;

/** What a header is checked against. */
export interface ExtentFile {
  /** Name of the image, which errors are about. */
  readonly image: string;
  /** Name of the file that has the header. */
  readonly filename: string;
  /** Length of that file in bytes. */
  readonly size: number;
}

/** A hosted extent's header, of which nothing has been checked; offsets and sizes in sectors. */
export interface HostedHeader {
  readonly version: number;
  readonly flags: number;
  readonly capacity: number;
  readonly grain: number;
  readonly descriptorOffset: number;
  readonly descriptorSize: number;
  readonly tableEntries: number;
  readonly directoryOffset: number;
  /** Whether the directory's offset is in the footer, since the extent was written as a stream. */
  readonly isInFooter: boolean;
  /** Sectors before the first grain. */
  readonly overhead: number;
  readonly compressAlgorithm: number;
}

/** Reads a hosted extent's header. @param at where its magic number stands in the bytes */
export function decodeHostedHeader(view: DataView, at = 0): HostedHeader {
  return {
    version: view.getUint32(at + 4, true),
    flags: view.getUint32(at + 8, true),
    capacity: uint64(view, at + 12),
    grain: uint64(view, at + 20),
    descriptorOffset: uint64(view, at + 28),
    descriptorSize: uint64(view, at + 36),
    tableEntries: view.getUint32(at + 44, true),
    directoryOffset: uint64(view, at + 56),
    isInFooter: view.getUint32(at + 56) === 0xffffffff && view.getUint32(at + 60) === 0xffffffff,
    overhead: uint64(view, at + 64),
    compressAlgorithm: view.getUint16(at + 77, true),
  };
}

/** Bytes of a footer, with the marker before it and the one that ends the stream. */
export const footerBytes = 3 * sectorBytes;

/**
 * Reads the header that stands at the end of a stream.
 *
 * @param view the last `footerBytes` of the extent, in whole sectors
 */
export function decodeFooter(view: DataView, { image }: ExtentFile): HostedHeader {
  const end = 2 * sectorBytes;
  const isFooter =
    view.getUint32(8) === 0 &&
    view.getUint32(12, true) === footerMarker &&
    view.getUint32(sectorBytes) === hostedMagic &&
    uint64(view, end) === 0 &&
    view.getUint32(end + 8) === 0 &&
    view.getUint32(end + 12, true) === endMarker;
  if (!isFooter) throw invalidImage(image, 'Invalid footer');
  return decodeHostedHeader(view, sectorBytes);
}

/** The extent that a hosted extent's header, or footer, describes. */
export function hostedExtent(header: HostedHeader, file: ExtentFile): SparseExtent {
  const { version, flags, capacity, grain, tableEntries, overhead } = header;
  if (version > newestVersion) {
    throw unsupportedImage(file.image, `Unsupported VMDK version ${version}`);
  }
  if (tableEntries > maxVmdkTableEntries) throw invalidImage(file.image, 'L2 table size too big');
  if (tableEntries * grain === 0) throw invalidImage(file.image, 'L1 entry size is invalid');
  if (Math.ceil(file.size / sectorBytes) < overhead) {
    const bytes = BigInt(overhead) * BigInt(sectorBytes);
    throw invalidImage(file.image, `File truncated, expecting at least ${bytes.toString()} bytes`);
  }
  const compressed = header.compressAlgorithm === deflate;
  const marked = (flags & markersFlag) !== 0 ? 'marked' : 'unmarked';
  return checked(
    {
      kind: 'sparse',
      length: capacity * sectorBytes,
      grainBytes: grain * sectorBytes,
      tableEntries,
      directoryOffset: header.directoryOffset * sectorBytes,
      directoryEntries: Math.ceil(capacity / (tableEntries * grain)),
      hasZeroedGrains: (flags & zeroedGrainsFlag) !== 0,
      compression: compressed ? marked : 'none',
    },
    file,
  );
}

/** The extent that a COWD extent's header describes. */
export function cowdExtent(view: DataView, file: ExtentFile): SparseExtent {
  return checked(
    {
      kind: 'sparse',
      length: view.getUint32(12, true) * sectorBytes,
      grainBytes: view.getUint32(16, true) * sectorBytes,
      tableEntries: cowdTableEntries,
      directoryOffset: view.getUint32(20, true) * sectorBytes,
      directoryEntries: view.getUint32(24, true),
      hasZeroedGrains: false,
      compression: 'none',
    },
    file,
  );
}

function checked(extent: SparseExtent, { image, filename }: ExtentFile): SparseExtent {
  const most = extent.compression === 'none' ? maxVmdkGrainBytes : maxChunkBytes;
  if (extent.grainBytes === 0 || extent.grainBytes > most) {
    throw invalidImage(image, 'Invalid granularity, image may be corrupt');
  }
  if (extent.directoryEntries > maxVmdkDirectoryEntries) {
    throw invalidImage(image, 'L1 size too big');
  }
  if (extent.length > maxOffset) throw invalidImage(image, 'Image is too big');
  if (extent.directoryOffset > maxOffset - maxVmdkDirectoryEntries * 8) {
    throw invalidImage(image, `Could not read l1 table from extent '${filename}'`);
  }
  return extent;
}

/** A number of 64 bits; beyond 2^53 it is about right, which is enough to refuse it. */
export function uint64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** What a new hosted extent's header, or footer, says; offsets and sizes in sectors. */
export interface NewHostedHeader {
  readonly isStream: boolean;
  /** Whether entries of tables may say that grains are zeroes. */
  readonly hasZeroedGrains: boolean;
  readonly capacity: number;
  readonly grain: number;
  readonly descriptorSize: number;
  readonly tableEntries: number;
  /** Of the copy of the directory; 0 if there is none. */
  readonly spareDirectoryAt: number;
  /** Undefined if only the footer says it. */
  readonly directoryAt: number | undefined;
  readonly overhead: number;
}

/** The bytes of a header or footer. */
export function encodeHostedHeader(header: NewHostedHeader): Uint8Array {
  const { isStream, hasZeroedGrains, spareDirectoryAt, directoryAt } = header;
  const bytes = Buffer.alloc(sectorBytes);
  bytes.writeUInt32BE(hostedMagic, 0);
  bytes.writeUInt32LE(isStream ? 3 : hasZeroedGrains ? 2 : 1, 4);
  let flags = newlineFlag;
  if (isStream) flags |= compressedFlag | markersFlag;
  if (spareDirectoryAt > 0) flags |= spareDirectoryFlag;
  if (hasZeroedGrains) flags |= zeroedGrainsFlag;
  bytes.writeUInt32LE(flags, 8);
  for (const [at, value] of [
    [12, header.capacity],
    [20, header.grain],
    [28, 1],
    [36, header.descriptorSize],
    [48, spareDirectoryAt],
    [64, header.overhead],
  ]) {
    bytes.writeBigUInt64LE(BigInt(value), at);
  }
  bytes.writeUInt32LE(header.tableEntries, 44);
  const inFooter = 2n ** 64n - 1n;
  bytes.writeBigUInt64LE(directoryAt === undefined ? inFooter : BigInt(directoryAt), 56);
  // By these a transfer as text is noticed.
  bytes.write('\n \r\n', 73, 'latin1');
  bytes.writeUInt16LE(isStream ? deflate : 0, 77);
  return bytes;
}

/** Where the copy of the grain directory lies, in bytes; undefined if the header names none. */
export function spareDirectoryOf(view: DataView): number | undefined {
  const hasSpare = (view.getUint32(8, true) & spareDirectoryFlag) !== 0;
  const offset = uint64(view, 48) * sectorBytes;
  return hasSpare && offset > 0 ? offset : undefined;
}
