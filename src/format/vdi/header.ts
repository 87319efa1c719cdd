/** The header of a VDI image (VirtualBox's format, version 1.1): from bytes to facts. */
import { unsupportedImage, invalidImage } from '../failures.js';
import { maxVdiBlocks } from '../../limits.js';

/** Bytes that a header takes, all of the first sector. */
export const vdiHeaderBytes = 512;

/** Bytes of a block: those of VirtualBox, and the only ones that QEMU reads. */
export const vdiBlockBytes = 1024 * 1024;

/** Where the number of blocks that have a place lies. */
export const vdiAllocatedAt = 0x184;

const sectorSize = 512;
const signature = 0xbeda107f;
const version = 0x00010001;
/** The type of an image whose blocks all have a place. */
const staticType = 2;
const dynamicType = 1;
/** Bytes of the header proper. */
const headerSize = 0x180;

/** What the header says of where things lie, in bytes. */
export interface VdiHeader {
  /** Of the disk, rounded up to a sector: VirtualBox makes odd ones. */
  readonly size: number;
  readonly mapOffset: number;
  /** Where block 0 of the file begins. */
  readonly dataOffset: number;
  /** Whether every block was given its place at creation. */
  readonly isStatic: boolean;
  /** Entries of the map. */
  readonly blocks: number;
  /** Of the entries, those that say they have a place. */
  readonly allocatedBlocks: number;
}

/**
 * Parses a header.
 *
 * @param bytes `vdiHeaderBytes` of them, zeroes beyond the end of the file
 * @throws ERR_COWHERD_INVALID_IMAGE if it is none, ERR_COWHERD_UNSUPPORTED for what QEMU does not read either
 */
export function decodeVdiHeader(bytes: Uint8Array, filename: string): VdiHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const unsupported = (why: string): Error =>
    unsupportedImage(filename, `unsupported VDI image (${why})`);
  const word = (at: number): number => view.getUint32(at, true);
  const diskSize = view.getBigUint64(0x170, true);
  if (word(0x40) !== signature) {
    const found = word(0x40).toString(16).padStart(8, '0');
    throw invalidImage(filename, `Image not in VDI format (bad signature ${found})`);
  }
  const most = maxVdiBlocks * vdiBlockBytes;
  if (diskSize > BigInt(most)) {
    const [size, max] = [diskSize.toString(16), most.toString(16)];
    const why = `Unsupported VDI image size (size is 0x${size}, max supported is 0x${max})`;
    throw unsupportedImage(filename, why);
  }
  const size = Math.ceil(Number(diskSize) / sectorSize) * sectorSize;
  if (word(0x44) !== version) {
    throw unsupported(`version ${word(0x44) >>> 16}.${word(0x44) & 0xffff}`);
  }
  const mapOffset = word(0x154);
  if (mapOffset % sectorSize !== 0) {
    throw unsupported(`unaligned block map offset 0x${mapOffset.toString(16)}`);
  }
  const dataOffset = word(0x158);
  if (dataOffset % sectorSize !== 0) {
    throw unsupported(`unaligned data offset 0x${dataOffset.toString(16)}`);
  }
  if (word(0x168) !== sectorSize) {
    throw unsupported(`sector size ${word(0x168)} is not ${sectorSize}`);
  }
  if (word(0x178) !== vdiBlockBytes) {
    throw unsupported(`block size ${word(0x178)} is not ${vdiBlockBytes}`);
  }
  const blocks = word(0x180);
  const room = blocks * vdiBlockBytes;
  if (size > room) throw unsupported(`disk size ${size}, image bitmap has room for ${room}`);
  // An image that stands on another one; which, VirtualBox knows by its registry alone.
  if (!isZero(bytes, 0x1a8)) throw unsupported('non-NULL link UUID');
  if (!isZero(bytes, 0x1b8)) throw unsupported('non-NULL parent UUID');
  if (blocks > maxVdiBlocks) {
    throw unsupported(`too many blocks ${blocks}, max is ${maxVdiBlocks}`);
  }
  return {
    size,
    mapOffset,
    dataOffset,
    isStatic: word(0x4c) === staticType,
    blocks,
    allocatedBlocks: word(vdiAllocatedAt),
  };
}

function isZero(bytes: Uint8Array, uuidAt: number): boolean {
  return bytes.subarray(uuidAt, uuidAt + 16).every((byte) => byte === 0);
}

/** What a new header says. */
export interface NewVdiHeader extends VdiHeader {
  /** Of the image, and of its last snapshot. */
  readonly uuids: readonly [Uint8Array, Uint8Array];
}

/** The bytes of a header. */
export function encodeVdiHeader(header: NewVdiHeader): Uint8Array {
  const bytes = new Uint8Array(vdiHeaderBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from('<<< cowherd virtual disk image >>>\n', 'latin1'));
  for (const [at, value] of [
    [0x40, signature],
    [0x44, version],
    [0x48, headerSize],
    [0x4c, header.isStatic ? staticType : dynamicType],
    [0x154, header.mapOffset],
    [0x158, header.dataOffset],
    [0x168, sectorSize],
    [0x178, vdiBlockBytes],
    [0x180, header.blocks],
    [vdiAllocatedAt, header.allocatedBlocks],
  ]) {
    view.setUint32(at, value, true);
  }
  view.setBigUint64(0x170, BigInt(header.size), true);
  bytes.set(header.uuids[0], 0x188);
  bytes.set(header.uuids[1], 0x198);
  return bytes;
}
