/**
 * The header of a growing disk of Bochs (bximage's "growing" mode, a redolog). Numbers are little-endian;
 * versions 1 and 2 differ in where the disk's size stands.
 */
import { maxBochsCatalogEntries, maxBochsExtentBytes } from '../../limits.js';
import { invalidImage } from '../failures.js';
import type { MappedLayout } from '../mapped/mapping.js';

/** Bytes of the header that are read. */
export const headerBytes = 512;
/** Bytes of a sector. */
export const sectorBytes = 512;
/** Bytes of an entry of the catalog. */
export const entryBytes = 4;

const texts = [
  { at: 0, text: 'Bochs Virtual HD Image\0' },
  { at: 32, text: 'Redolog\0' },
  { at: 48, text: 'Growing\0' },
] as const;
const version1 = 0x00010000;
const version2 = 0x00020000;
const sizeAt: Readonly<Record<number, number>> = { [version1]: 84, [version2]: 88 };

/** What a header tells. */
export interface BochsLayout extends MappedLayout {
  /** Host offset in bytes of the catalog, which has an entry for each extent of the disk. */
  readonly catalogOffset: number;
  readonly catalogEntries: number;
  /** Bytes of the disk in an extent, a power of two. */
  readonly extentBytes: number;
  /** Bytes in the file before an extent's data: which of its sectors are stored, a bit each. */
  readonly bitmapBytes: number;
}

/**
 * Reads and checks a header.
 *
 * @param bytes the first `headerBytes` of the file
 */
export function decodeHeader(bytes: Uint8Array, filename: string): BochsLayout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number): number => view.getUint32(at, true);
  const isBochs = texts.every(({ at, text }) =>
    Buffer.from(text, 'latin1').every((byte, index) => bytes[at + index] === byte),
  );
  const sizeOffset = sizeAt[word(64)] as number | undefined;
  if (!isBochs || sizeOffset === undefined) {
    throw invalidImage(filename, 'Image not in Bochs format');
  }
  const catalogEntries = word(72);
  if (catalogEntries > maxBochsCatalogEntries) {
    throw invalidImage(filename, 'Catalog size is too large');
  }
  const extentBytes = word(80);
  if (extentBytes < sectorBytes) {
    throw invalidImage(filename, 'Extent size must be at least 512');
  }
  if ((extentBytes & (extentBytes - 1)) !== 0) {
    throw invalidImage(filename, `Extent size ${extentBytes} is not a power of two`);
  }
  if (extentBytes > maxBochsExtentBytes) {
    throw invalidImage(filename, `Extent size ${extentBytes} is too large`);
  }
  const size = word(sizeOffset + 4) * 2 ** 32 + word(sizeOffset);
  const sectors = Math.floor(size / sectorBytes);
  if (catalogEntries < Math.ceil((sectors * sectorBytes) / extentBytes)) {
    throw invalidImage(filename, 'Catalog size is too small for this disk size');
  }
  const bitmap = word(76);
  const bitmapBytes = Math.ceil(bitmap / sectorBytes) * sectorBytes;
  if (bitmapBytes * 8 < extentBytes / sectorBytes) {
    throw invalidImage(filename, `Bitmap size ${bitmap} is too small for this extent size`);
  }
  return {
    size: sectors * sectorBytes,
    clusterSize: undefined,
    catalogOffset: word(68),
    catalogEntries,
    extentBytes,
    bitmapBytes,
  };
}
