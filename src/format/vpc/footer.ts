/** The footer of a VHD image, and the header of those with a table of blocks: from bytes to facts. */
import { maxVhdSectors, maxVhdTableEntries } from '../../limits.js';
import { invalidImage } from '../failures.js';
import { type VhdGeometry, maxGeometrySectors } from './geometry.js';

/** Bytes of the footer, which ends the file, and of the copy that begins one with a table. */
export const vhdFooterBytes = 512;

/** Bytes of the header of an image with a table. */
export const vhdHeaderBytes = 1024;

/** Bytes of a sector; offsets in the table are counted in them, and blocks' bitmaps have a bit for each. */
export const vhdSectorBytes = 512;

/** Values of a footer's `type`. */
const DiskType = { fixed: 2, dynamic: 3, differencing: 4 } as const;

/** Programs that mean the geometry, which is less than the size they were asked for, or more. */
const geometryCreators = ['vpc ', 'qemu'];

/** What the footer says. */
export interface VhdFooter {
  readonly kind: keyof typeof DiskType;
  /** Of the disk, in bytes. */
  readonly size: number;
  /** Host offset of the header, in bytes; not for fixed disks. */
  readonly headerOffset: number;
  /** The image's unique id, in hexadecimal. */
  readonly uuid: string;
}

/** What the header says, in bytes if nothing else is said. */
export interface VhdHeader {
  readonly tableOffset: number;
  readonly tableEntries: number;
  /** Of a block, a power of two. */
  readonly blockSize: number;
  /** Of the bitmap that precedes each block. */
  readonly bitmapBytes: number;
}

/** Whether bytes begin as a footer does. */
export function isVhdFooter(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.subarray(0, 8)).toString('latin1') === 'conectix';
}

/**
 * Parses a footer.
 *
 * @param bytes `vhdFooterBytes` of them, which begin as a footer does
 * @throws ERR_COWHERD_INVALID_IMAGE
 */
export function decodeVhdFooter(bytes: Uint8Array, filename: string): VhdFooter {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(64) !== checksumOf(bytes)) {
    throw invalidImage(filename, 'Incorrect header checksum');
  }
  const kind = kindOf(view.getUint32(60));
  if (kind === undefined) throw invalidImage(filename, 'invalid VPC image');
  const geometry = view.getUint16(56) * bytes[58] * bytes[59];
  const creator = Buffer.from(bytes.subarray(28, 32)).toString('latin1');
  const meansGeometry = geometryCreators.includes(creator) && geometry !== maxGeometrySectors;
  const currentSize = Number(view.getBigUint64(48));
  const sectors = meansGeometry ? geometry : Math.floor(currentSize / vhdSectorBytes);
  if (sectors > maxVhdSectors) throw invalidImage(filename, 'File too large');
  return {
    kind,
    size: sectors * vhdSectorBytes,
    headerOffset: Number(view.getBigUint64(16)),
    uuid: Buffer.from(bytes.subarray(68, 84)).toString('hex'),
  };
}

/**
 * Parses the header of an image with a table of blocks.
 *
 * @param bytes `vhdHeaderBytes` of them
 * @param size of the disk, in bytes
 * @throws ERR_COWHERD_INVALID_IMAGE
 */
export function decodeVhdHeader(bytes: Uint8Array, size: number, filename: string): VhdHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (Buffer.from(bytes.subarray(0, 8)).toString('latin1') !== 'cxsparse') {
    throw invalidImage(filename, 'Invalid header magic');
  }
  const blockSize = view.getUint32(32);
  if (blockSize < vhdSectorBytes || !Number.isInteger(Math.log2(blockSize))) {
    throw invalidImage(filename, `Invalid block size ${blockSize}`);
  }
  const tableEntries = view.getUint32(28);
  if (tableEntries * blockSize < size) throw invalidImage(filename, 'Page table too small');
  if (tableEntries > maxVhdTableEntries) {
    throw invalidImage(filename, `Max Table Entries too large (${tableEntries})`);
  }
  // Blocks of less than eight sectors have none, in QEMU's reading.
  const bits = Math.floor(blockSize / vhdSectorBytes / 8);
  const bitmapBytes = Math.ceil(bits / vhdSectorBytes) * vhdSectorBytes;
  return { tableOffset: Number(view.getBigUint64(16)), tableEntries, blockSize, bitmapBytes };
}

/** The complement of the sum of all bytes but the checksum's own. */
function checksumOf(bytes: Uint8Array): number {
  let sum = 0;
  for (const [at, byte] of bytes.entries()) if (at < 64 || at >= 68) sum += byte;
  return ~sum >>> 0;
}

function kindOf(type: number): VhdFooter['kind'] | undefined {
  if (type === DiskType.fixed) return 'fixed';
  if (type === DiskType.dynamic) return 'dynamic';
  return type === DiskType.differencing ? 'differencing' : undefined;
}

/** What a new footer says. */
export interface NewVhdFooter {
  /** Of the disk, in bytes. */
  readonly size: number;
  readonly geometry: VhdGeometry;
  /** Whether the disk is as long as its geometry says, rather than as its size. */
  readonly meansGeometry: boolean;
  readonly isFixed: boolean;
  readonly uuid: Uint8Array;
  /** Milliseconds since 1970. */
  readonly time: number;
}

/** Seconds from 1970 to 2000, when the format's time begins. */
const epochSeconds = 946_684_800;

/** The bytes of a footer. */
export function encodeVhdFooter(footer: NewVhdFooter): Uint8Array {
  const { size, geometry, meansGeometry, isFixed, uuid, time } = footer;
  const bytes = Buffer.alloc(vhdFooterBytes);
  bytes.write('conectix', 0, 'latin1');
  bytes.writeUInt32BE(2, 8);
  bytes.writeUInt32BE(0x00010000, 12);
  bytes.writeBigUInt64BE(isFixed ? 2n ** 64n - 1n : BigInt(vhdFooterBytes), 16);
  bytes.writeUInt32BE(Math.max(0, Math.floor(time / 1000) - epochSeconds), 24);
  // Programs tell by it whether the geometry counts, or the size.
  bytes.write(meansGeometry ? 'qemu' : 'qem2', 28, 'latin1');
  bytes.writeUInt32BE(0x00050003, 32);
  bytes.write('Wi2k', 36, 'latin1');
  bytes.writeBigUInt64BE(BigInt(size), 40);
  bytes.writeBigUInt64BE(BigInt(size), 48);
  bytes.writeUInt16BE(geometry.cylinders, 56);
  bytes[58] = geometry.heads;
  bytes[59] = geometry.sectorsPerTrack;
  bytes.writeUInt32BE(isFixed ? DiskType.fixed : DiskType.dynamic, 60);
  bytes.set(uuid, 68);
  bytes.writeUInt32BE(checksumOf(bytes), 64);
  return bytes;
}

/** The bytes of the header of an image with a table of blocks, all of it in bytes. */
export function encodeVhdHeader({
  tableOffset,
  tableEntries,
  blockSize,
}: Pick<VhdHeader, 'tableOffset' | 'tableEntries' | 'blockSize'>): Uint8Array {
  const bytes = Buffer.alloc(vhdHeaderBytes);
  bytes.write('cxsparse', 0, 'latin1');
  bytes.fill(0xff, 8, 16);
  bytes.writeBigUInt64BE(BigInt(tableOffset), 16);
  bytes.writeUInt32BE(0x00010000, 24);
  bytes.writeUInt32BE(tableEntries, 28);
  bytes.writeUInt32BE(blockSize, 32);
  let sum = 0;
  for (const byte of bytes) sum += byte;
  bytes.writeUInt32BE(~sum >>> 0, 36);
  return bytes;
}
