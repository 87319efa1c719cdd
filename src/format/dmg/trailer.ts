/**
 * The trailer of a UDIF image (Apple's universal disk image format): 512 bytes at the end of the file,
 * big-endian, which say where the description of the chunks lies.
 */
import { maxOffset } from '../../limits.js';
import { invalidImage } from '../failures.js';
import { uint64 } from './big-endian.js';

const sectorBytes = 512;
/** Bytes of the trailer. */
export const trailerBytes = 512;
const magic = Buffer.from('koly', 'latin1');
/** Bytes among which its magic number begins, from the last but 1022 on: files may have odd lengths. */
const searchedBytes = 515;
const searchedFromEnd = 1023;

/** A part of the file, in bytes. */
export interface FilePart {
  readonly offset: number;
  readonly length: number;
}

/** What the trailer says. */
export interface Trailer {
  /** Bytes of the disk. */
  readonly size: number;
  /** Host offset in bytes, which offsets of chunks count from. */
  readonly dataOffset: number;
  /** Where the chunks are described, if as resources. */
  readonly resources: FilePart;
  /** Where the chunks are described, if in a property list. */
  readonly propertyList: FilePart;
}

/** Where to look for the trailer of a file of some length in bytes. */
export function searchedPart(fileLength: number, filename: string): FilePart {
  const end = Math.ceil(fileLength / sectorBytes) * sectorBytes;
  if (end < trailerBytes) {
    throw invalidImage(filename, 'dmg file must be at least 512 bytes long');
  }
  return {
    offset: Math.max(0, end - searchedFromEnd),
    length: Math.min(end, searchedBytes),
  };
}

/** Where in the searched bytes the trailer begins. */
export function findTrailer(searched: Uint8Array, filename: string): number {
  const found = Buffer.from(searched.buffer, searched.byteOffset, searched.length).indexOf(magic);
  if (found < 0) throw invalidImage(filename, 'Could not locate UDIF trailer in dmg file');
  return found;
}

/**
 * Reads and checks a trailer.
 *
 * @param offset where it begins in the file, in bytes
 */
export function decodeTrailer(view: DataView, offset: number, filename: string): Trailer {
  const part = (at: number, what: string): FilePart => {
    const found = { offset: uint64(view, at), length: uint64(view, at + 8) };
    if (found.offset >= offset || found.length > offset - found.offset) {
      throw invalidImage(filename, `the ${what} lies beyond the UDIF trailer`);
    }
    return found;
  };
  const dataOffset = uint64(view, 0x18);
  if (dataOffset > offset) {
    throw invalidImage(filename, 'the data fork lies beyond the UDIF trailer');
  }
  const resources = part(0x28, 'resource fork');
  const propertyList = part(0xd8, 'property list');
  const size = uint64(view, 0x1ec) * sectorBytes;
  if (size > maxOffset) throw invalidImage(filename, 'Image is too big');
  if (resources.length === 0 && propertyList.length === 0) {
    throw invalidImage(filename, 'nothing describes the chunks of the image');
  }
  return { size, dataOffset, resources, propertyList };
}
