/**
 * Headers of space-efficient sparse extents (SESparse) of ESXi. There is no public description of the
 * format: as QEMU does, what is not known in all its parts is refused.
 */
import { maxOffset, maxVmdkDirectoryEntries } from '../../limits.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { type SeSparseExtent, sectorBytes } from './layout.js';
import { type ExtentFile, uint64 } from './sparse-header.js';

const constantMagic = '00000000cafebabe';
const volatileMagic = '00000000cafecafe';
const knownVersion = '0000000200000001';
/** Sectors of a grain. */
const knownGrain = 8;
/** Sectors of a grain table. */
const knownTable = 64;
/** Bytes of an entry of the directory or of a table. */
const entryBytes = 8;
/** Words of 64 bits of the two headers; the rest of their sectors is zeroes. */
const constantWords = 26;
const volatileWords = 4;

/**
 * The extent that the header at its begin describes.
 *
 * @returns with the host offset in bytes of the other header, which changes while the disk is in use
 */
export function decodeConstantHeader(
  view: DataView,
  file: ExtentFile,
): { readonly extent: SeSparseExtent; readonly volatileOffset: number } {
  const { image, filename } = file;
  const word = (number: number): number => uint64(view, number * 8);
  const hex = (number: number): string => hexadecimal(view, number * 8);
  if (hex(0) !== constantMagic) {
    throw invalidImage(image, `Bad const header magic: 0x${hex(0)}`);
  }
  const unsupported = (what: string): Error => unsupportedImage(image, `Unsupported ${what}`);
  if (hex(1) !== knownVersion) throw unsupported(`version: 0x${hex(1)}`);
  if (word(3) !== knownGrain) throw unsupported(`grain size: ${word(3)}`);
  if (word(4) !== knownTable) throw unsupported(`grain table size: ${word(4)}`);
  if (word(5) !== 0) throw unsupported(`flags: 0x${hex(5)}`);
  const reserved = [6, 7, 8, 9];
  if (reserved.some((number) => word(number) !== 0)) {
    throw unsupported(`reserved bits: ${reserved.map((number) => `0x${hex(number)}`).join(' ')}`);
  }
  if (!isZero(view, constantWords)) throw unsupported('non-zero const header padding');
  const extent: SeSparseExtent = {
    kind: 'seSparse',
    length: word(2) * sectorBytes,
    grainBytes: knownGrain * sectorBytes,
    tableEntries: (knownTable * sectorBytes) / entryBytes,
    directoryOffset: word(16) * sectorBytes,
    directoryEntries: word(17) * (sectorBytes / entryBytes),
    tablesOffset: word(18) * sectorBytes,
    grainsOffset: word(24) * sectorBytes,
  };
  const volatileOffset = word(10) * sectorBytes;
  if (volatileOffset > maxOffset - sectorBytes) {
    throw invalidImage(image, `Could not read volatile header from file '${filename}'`);
  }
  if (extent.directoryEntries > maxVmdkDirectoryEntries) {
    throw invalidImage(image, 'L1 size too big');
  }
  if (extent.length > maxOffset) throw invalidImage(image, 'Image is too big');
  if (extent.directoryOffset > maxOffset - maxVmdkDirectoryEntries * entryBytes) {
    throw invalidImage(image, `Could not read l1 table from extent '${filename}'`);
  }
  return { extent, volatileOffset };
}

/** Refuses what an unclean end has left, and what is not known. */
export function checkVolatileHeader(view: DataView, { image }: ExtentFile): void {
  const magic = hexadecimal(view, 0);
  if (magic !== volatileMagic) {
    throw invalidImage(image, `Bad volatile header magic: 0x${magic}`);
  }
  if (uint64(view, 3 * 8) !== 0) {
    throw unsupportedImage(image, 'Image is dirty, Replaying journal not supported');
  }
  if (!isZero(view, volatileWords)) {
    throw unsupportedImage(image, 'Unsupported non-zero volatile header padding');
  }
}

function isZero(view: DataView, fromWord: number): boolean {
  for (let at = fromWord * 8; at < sectorBytes; at += 4) {
    if (view.getUint32(at) !== 0) return false;
  }
  return true;
}

function hexadecimal(view: DataView, at: number): string {
  const half = (value: number): string => value.toString(16).padStart(8, '0');
  return half(view.getUint32(at + 4, true)) + half(view.getUint32(at, true));
}
