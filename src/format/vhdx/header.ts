/** The header section of a VHDX image ([MS-VHDX] 2.2): from bytes to facts, and back. */
import { maxOffset } from '../../limits.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { crc32cAround } from './crc32c.js';
import { encodeGuid, guidAt, guidBytes, newGuid, noGuid } from './guid.js';
import type { StorageFile } from '../../storage/storage.js';

/** What all structures are aligned to, in bytes, and the size of the header section. */
export const vhdxAlignment = 1024 * 1024;

/** Host offsets of the two headers, in bytes, and the size of each. */
export const vhdxHeaderOffsets = [64 * 1024, 128 * 1024] as const;
export const vhdxHeaderBytes = 4096;

/** Host offsets of the two copies of the region table, in bytes, and the size of each. */
export const vhdxRegionTableOffsets = [192 * 1024, 256 * 1024] as const;
export const vhdxRegionTableBytes = 64 * 1024;

/** Bytes that are written as the file type identifier, the rest of whose 64 KiB are zeroes. */
const identifierBytes = 4096;
const creator = 'cowherd';

const checksumAt = 4;
const maxEntries = 2047;
const regionEntryBytes = 32;
/** Fields of a header, but what is reserved. */
const headerFieldBytes = 80;

const allocationTableId = '2DC27766-F623-4200-9D64-115E9BFD4A08';
const metadataId = '8B7CA206-4790-4B9A-B8FE-575F050F886E';

/** A part of the file, in bytes. */
export interface FileRange {
  readonly offset: number;
  readonly length: number;
}

/** What the current header says. */
export interface VhdxHeader {
  readonly log: FileRange;
  /** Of the entries of the log that count; undefined if there are none. */
  readonly logId: string | undefined;
  /** Which of the two headers it is. */
  readonly index: number;
  readonly sequenceNumber: bigint;
  /** The GUID of what the disk holds. */
  readonly dataWriteId: string;
}

/** Where the regions lie that every image has. */
export interface VhdxRegions {
  readonly allocationTable: FileRange;
  readonly metadata: FileRange;
}

/**
 * The current one of the two headers, parsed: of those that are whole the one with the greater sequence
 * number.
 *
 * @param headers `vhdxHeaderBytes` of each
 * @throws ERR_COWHERD_INVALID_IMAGE
 */
export function decodeVhdxHeaders(headers: readonly Uint8Array[], filename: string): VhdxHeader {
  const whole = headers.filter(isHeader);
  const [first, second] = [whole.at(0), whole.at(1)];
  if (first === undefined) throw invalidImage(filename, 'No valid VHDX header found');
  let current = first;
  if (second !== undefined) {
    const [one, other] = [sequenceNumber(first), sequenceNumber(second)];
    // Disk2vhd writes the same header twice.
    const areSame = Buffer.compare(fieldsOf(first), fieldsOf(second)) === 0;
    if (one === other && !areSame) throw invalidImage(filename, 'No valid VHDX header found');
    if (other > one) current = second;
  }
  const view = viewOf(current);
  const logVersion = view.getUint16(64, true);
  const length = view.getUint32(68, true);
  const offset = Number(view.getBigUint64(72, true));
  const logId = guidAt(view, 48);
  if (offset < vhdxAlignment || offset % vhdxAlignment !== 0 || offset + length > maxOffset) {
    throw invalidImage(filename, 'Invalid VHDX log offset');
  }
  const log = { offset, length };
  const facts = {
    log,
    index: headers.indexOf(current),
    sequenceNumber: sequenceNumber(current),
    dataWriteId: guidAt(view, 32),
  };
  if (logId === noGuid || length === 0) return { ...facts, logId: undefined };
  if (logVersion !== 0) {
    throw unsupportedImage(filename, `Unsupported VHDX log version ${logVersion}`);
  }
  if (length % vhdxAlignment !== 0) throw invalidImage(filename, 'Invalid VHDX log length');
  return { ...facts, logId };
}

/** What a header says whose image was closed. */
export interface NewVhdxHeader {
  /** Modulo 2^64. */
  readonly sequenceNumber: bigint;
  /** GUIDs: of what the file holds, and of what the disk holds. */
  readonly fileWriteId: Uint8Array;
  readonly dataWriteId: Uint8Array;
  readonly log: FileRange;
}

/** The bytes of a header. */
export function encodeVhdxHeader(header: NewVhdxHeader): Uint8Array {
  const bytes = new Uint8Array(vhdxHeaderBytes);
  const view = viewOf(bytes);
  bytes.set(Buffer.from('head', 'latin1'));
  view.setBigUint64(8, header.sequenceNumber, true);
  bytes.set(header.fileWriteId, 16);
  bytes.set(header.dataWriteId, 32);
  view.setUint16(66, 1, true);
  view.setUint32(68, header.log.length, true);
  view.setBigUint64(72, BigInt(header.log.offset), true);
  return sign(bytes);
}

/**
 * Says in both headers, in the older one first, that the file is no longer the one that it was, and that
 * nothing in its log counts: before anything else of it is changed ([MS-VHDX] 2.2.2.1), or once the log
 * has been replayed.
 *
 * @param dataWriteId another one if what the disk holds is about to change
 */
export async function renewVhdxHeaders(
  file: StorageFile,
  { index, sequenceNumber, log }: VhdxHeader,
  dataWriteId: Uint8Array,
): Promise<void> {
  const fileWriteId = newGuid();
  for (const step of [1, 2]) {
    const header = encodeVhdxHeader({
      sequenceNumber: sequenceNumber + BigInt(step),
      fileWriteId,
      dataWriteId,
      log,
    });
    await file.write(header, vhdxHeaderOffsets[(index + step) % vhdxHeaderOffsets.length]);
    await file.flush();
  }
}

function isHeader(bytes: Uint8Array): boolean {
  const view = viewOf(bytes);
  return hasSignature(bytes, 'head') && isWhole(bytes) && view.getUint16(66, true) === 1;
}

function sequenceNumber(header: Uint8Array): bigint {
  return viewOf(header).getBigUint64(8, true);
}

function fieldsOf(header: Uint8Array): Uint8Array {
  return header.subarray(0, headerFieldBytes);
}

/**
 * The region table: of the two copies the first that is whole.
 *
 * @param tables `vhdxRegionTableBytes` of each
 * @param log which no region may overlap
 * @throws ERR_COWHERD_INVALID_IMAGE, ERR_COWHERD_UNSUPPORTED for a region that has to be known
 */
export function decodeVhdxRegions(
  tables: readonly Uint8Array[],
  log: FileRange,
  filename: string,
): VhdxRegions {
  const table = tables.find((each) => hasSignature(each, 'regi') && isWhole(each));
  if (table === undefined) throw invalidImage(filename, 'No valid VHDX region table found');
  const view = viewOf(table);
  const count = view.getUint32(8, true);
  if (count > maxEntries) throw invalidImage(filename, 'Too many VHDX regions');
  const found = new Map<string, FileRange>();
  const ranges = [log];
  for (let index = 0; index < count; index++) {
    const at = guidBytes + index * regionEntryBytes;
    const id = guidAt(view, at);
    const range = decodeRange(view, at + guidBytes, filename);
    const isRequired = (view.getUint32(at + 28, true) & 1) !== 0;
    if (found.has(id)) throw invalidImage(filename, `VHDX region ${id} is there twice`);
    if (isRequired && id !== allocationTableId && id !== metadataId) {
      throw unsupportedImage(filename, `Unsupported VHDX region ${id}`);
    }
    found.set(id, range);
    ranges.push(range);
  }
  refuseOverlaps(ranges, filename);
  const [allocationTable, metadata] = [found.get(allocationTableId), found.get(metadataId)];
  if (allocationTable === undefined || metadata === undefined) {
    throw invalidImage(
      filename,
      'The VHDX region table names no block allocation table or metadata',
    );
  }
  return { allocationTable, metadata };
}

/** The bytes of a region table. */
export function encodeVhdxRegions({ allocationTable, metadata }: VhdxRegions): Uint8Array {
  const bytes = new Uint8Array(vhdxRegionTableBytes);
  const view = viewOf(bytes);
  bytes.set(Buffer.from('regi', 'latin1'));
  const regions = [
    { id: allocationTableId, range: allocationTable },
    { id: metadataId, range: metadata },
  ];
  view.setUint32(8, regions.length, true);
  for (const [index, { id, range }] of regions.entries()) {
    const at = guidBytes + index * regionEntryBytes;
    bytes.set(encodeGuid(id), at);
    view.setBigUint64(at + guidBytes, BigInt(range.offset), true);
    view.setUint32(at + guidBytes + 8, range.length, true);
    view.setUint32(at + guidBytes + 12, 1, true);
  }
  return sign(bytes);
}

/** The begin of a file, by which it is an image: its signature, and who made it. */
export function encodeVhdxIdentifier(): Uint8Array {
  const bytes = new Uint8Array(identifierBytes);
  bytes.set(Buffer.from('vhdxfile', 'latin1'));
  bytes.set(Buffer.from(creator, 'utf16le'), 8);
  return bytes;
}

function decodeRange(view: DataView, at: number, filename: string): FileRange {
  const offset = Number(view.getBigUint64(at, true));
  const length = view.getUint32(at + 8, true);
  if (offset < vhdxAlignment || offset % vhdxAlignment !== 0 || offset + length > maxOffset) {
    throw invalidImage(filename, 'Invalid VHDX region offset');
  }
  return { offset, length };
}

function refuseOverlaps(ranges: readonly FileRange[], filename: string): void {
  const ordered = ranges
    .filter(({ length }) => length > 0)
    .sort((one, other) => one.offset - other.offset);
  for (const [index, range] of ordered.entries()) {
    const next = ordered.at(index + 1);
    if (next !== undefined && range.offset + range.length > next.offset) {
      throw invalidImage(filename, overlapMessage(next, range));
    }
  }
}

/** That a range overlaps another one, in QEMU's words. */
export function overlapMessage(range: FileRange, other: FileRange): string {
  const shown = ({ offset, length }: FileRange): string => `${offset}-${offset + length}`;
  return `VHDX region ${shown(range)} overlaps with region ${shown(other)}`;
}

/** Whether bytes begin with a text. */
export function hasSignature(bytes: Uint8Array, text: string): boolean {
  return Buffer.from(bytes.subarray(0, text.length)).toString('latin1') === text;
}

function isWhole(bytes: Uint8Array): boolean {
  return viewOf(bytes).getUint32(checksumAt, true) === crc32cAround([bytes], checksumAt);
}

/** Puts a structure's checksum into it. */
function sign(bytes: Uint8Array): Uint8Array {
  viewOf(bytes).setUint32(checksumAt, crc32cAround([bytes], checksumAt), true);
  return bytes;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
