/** The header of a QED image (QEMU's docs/interop/qed_spec): from bytes to facts. */
import { maxOffset, maxQedBackingNameBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { BackingReference } from '../driver.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { decodeText } from '../qcow2/layout/stored-text.js';

/** Bytes of an entry of a table: a host offset. */
export const qedEntryBytes = 8;

const headerBytes = 64;
const magic = 0x00444551;
const sectorSize = 512;
/** Where the 64 bits of the features lie. */
const featuresAt = 16;
const sizeAt = 48;
/** Where the place of the backing file's name is said, and its length. */
const nameOffsetAt = 56;
const nameLengthAt = 60;
/** Bytes of a cluster, and clusters of a table: powers of two. */
export const qedBounds = {
  minClusterSize: 2 ** 12,
  maxClusterSize: 2 ** 26,
  maxTableSize: 16,
} as const;

/** Bits of the features; a reader need not know that an image was not closed (2). */
const Feature = { backingFile: 1, needsCheck: 2, backingIsRaw: 4, known: 7 } as const;

/** What the header says, in bytes. */
export interface QedHeader {
  readonly size: number;
  readonly clusterSize: number;
  /** Of the L1 table, and of each L2 table. */
  readonly tableBytes: number;
  readonly l1TableOffset: number;
  /** Where clusters begin, after those of the header. */
  readonly clustersStart: number;
  /** Where they end: the end of the file, down to a whole cluster. */
  readonly clustersEnd: number;
  /** Whether it was not closed cleanly. */
  readonly needsCheck: boolean;
  readonly backing: BackingReference | undefined;
}

/**
 * Reads and checks the header.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE, ERR_COWHERD_UNSUPPORTED for features that no reader may ignore
 */
export async function readQedHeader(file: StorageFile): Promise<QedHeader> {
  const { filename } = file;
  const bytes = new Uint8Array(headerBytes);
  await file.read(bytes, 0);
  const view = new DataView(bytes.buffer);
  const word = (at: number): number => view.getUint32(at, true);
  if (word(0) !== magic) throw invalidImage(filename, 'Image not in QED format');
  const unknown = view.getBigUint64(featuresAt, true) & ~BigInt(Feature.known);
  if (unknown !== 0n) {
    throw unsupportedImage(filename, `Unsupported QED features: ${unknown.toString(16)}`);
  }
  const clusterSize = word(4);
  if (!isPowerWithin(clusterSize, qedBounds.minClusterSize, qedBounds.maxClusterSize)) {
    throw invalidImage(filename, 'QED cluster size is invalid');
  }
  if (!isPowerWithin(word(8), 1, qedBounds.maxTableSize)) {
    throw invalidImage(filename, 'QED table size is invalid');
  }
  const tableBytes = word(8) * clusterSize;
  const size = Number(view.getBigUint64(sizeAt, true));
  if (!isQedSize(size, { clusterSize, tableBytes })) {
    throw invalidImage(filename, 'QED image size is invalid');
  }
  const clustersStart = word(12) * clusterSize;
  const clustersEnd = Math.floor((await file.size()) / clusterSize) * clusterSize;
  const l1TableOffset = Number(view.getBigUint64(40, true));
  const header = { size, clusterSize, tableBytes, l1TableOffset, clustersStart, clustersEnd };
  if (!areClusters(header, l1TableOffset, tableBytes)) {
    throw invalidImage(filename, 'QED table offset is invalid');
  }
  const features = word(featuresAt);
  const hasBacking = (features & Feature.backingFile) !== 0;
  const isRaw = (features & Feature.backingIsRaw) !== 0;
  const name = hasBacking
    ? await readName(file, word(nameOffsetAt), word(nameLengthAt), clustersStart)
    : '';
  const backing = name === '' ? undefined : { name, format: isRaw ? 'raw' : undefined };
  return { ...header, needsCheck: (features & Feature.needsCheck) !== 0, backing };
}

/** Whether a disk can be so large, in bytes. */
export function isQedSize(
  size: number,
  { clusterSize, tableBytes }: Pick<QedHeader, 'clusterSize' | 'tableBytes'>,
): boolean {
  const reach = (tableBytes / qedEntryBytes) ** 2 * clusterSize;
  return size % sectorSize === 0 && size <= Math.min(reach, maxOffset);
}

/** Says in the header, durably, that the image was checked. Its tables are durable by then. */
export async function markQedChecked(file: StorageFile): Promise<void> {
  const features = new Uint8Array(8);
  await file.read(features, featuresAt);
  features[0] &= ~Feature.needsCheck;
  await file.write(features, featuresAt);
  await file.flush();
}

/** Says in the header, durably, how large the disk is. */
export async function writeQedSize(file: StorageFile, size: number): Promise<void> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(size), true);
  await file.write(bytes, sizeAt);
  await file.flush();
}

/** A new name for the file below; an empty one for none. */
export interface QedName {
  readonly bytes: Uint8Array;
  /** Whether that file is not to be probed. */
  readonly isRaw: boolean;
}

/** A header that names another file below. */
export interface QedNaming {
  readonly header: Uint8Array;
  /** Where the name lies, in bytes. */
  readonly at: number;
}

/** How a header comes to name a file below; undefined where it has no room for that beside the name it has. */
export async function planQedName(
  file: StorageFile,
  { bytes, isRaw }: QedName,
): Promise<QedNaming | undefined> {
  const header = new Uint8Array(headerBytes);
  await file.read(header, 0);
  const view = new DataView(header.buffer);
  const end = view.getUint32(12, true) * view.getUint32(4, true);
  const old = view.getUint32(nameOffsetAt, true);
  const oldEnd = old + view.getUint32(nameLengthAt, true);
  const isFree = (at: number): boolean => at + bytes.length <= old || at >= oldEnd;
  // Of one sector both are written at once; else the old name has to stay until the header names the new one.
  const at =
    headerBytes + bytes.length <= sectorSize
      ? headerBytes
      : [sectorSize, oldEnd].find((each) => isFree(each) && each + bytes.length <= end);
  if (at === undefined) return undefined;
  let features = view.getUint32(featuresAt, true);
  features &= ~(Feature.backingFile | Feature.backingIsRaw);
  if (bytes.length > 0) features |= Feature.backingFile | (isRaw ? Feature.backingIsRaw : 0);
  view.setUint32(featuresAt, features, true);
  view.setUint32(nameOffsetAt, at, true);
  view.setUint32(nameLengthAt, bytes.length, true);
  return { header, at };
}

/** Says in the header, durably, which file is the one below. */
export async function writeQedName(
  file: StorageFile,
  { header, at }: QedNaming,
  { bytes }: QedName,
): Promise<void> {
  if (at === headerBytes) {
    await file.write(Buffer.concat([header, bytes]), 0);
  } else {
    await file.write(bytes, at);
    await file.flush();
    await file.write(header, 0);
  }
  await file.flush();
}

/** Whether a range of the file, in bytes, is whole clusters of it that lie after the header. */
export function areClusters(
  {
    clusterSize,
    clustersStart,
    clustersEnd,
  }: Pick<QedHeader, 'clusterSize' | 'clustersStart' | 'clustersEnd'>,
  offset: number,
  length: number,
): boolean {
  return offset % clusterSize === 0 && offset >= clustersStart && offset + length <= clustersEnd;
}

function isPowerWithin(value: number, least: number, most: number): boolean {
  return value >= least && value <= most && (value & (value - 1)) === 0;
}

/** The backing file's name, which lies in the header's clusters. */
async function readName(
  file: StorageFile,
  offset: number,
  length: number,
  headerEnd: number,
): Promise<string> {
  if (offset + length > headerEnd) {
    throw invalidImage(file.filename, 'QED backing filename offset is invalid');
  }
  if (length > maxQedBackingNameBytes) {
    throw invalidImage(file.filename, 'Backing file name too long');
  }
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return decodeText(bytes);
}

/** What a new header says; the L1 table follows the header's cluster. */
export interface NewQedHeader {
  /** Of the disk, in bytes. */
  readonly size: number;
  readonly clusterSize: number;
  /** Clusters of a table. */
  readonly tableClusters: number;
  /** The backing file's name in bytes, and whether it is not to be probed. */
  readonly name: Uint8Array | undefined;
  readonly isRaw: boolean;
}

/** The bytes of a header, and the name behind it. */
export function encodeQedHeader(header: NewQedHeader): Uint8Array {
  const { size, clusterSize, tableClusters, name = new Uint8Array(), isRaw } = header;
  const bytes = new Uint8Array(headerBytes + name.length);
  const view = new DataView(bytes.buffer);
  let features = name.length > 0 ? Feature.backingFile : 0;
  if (name.length > 0 && isRaw) features |= Feature.backingIsRaw;
  for (const [at, value] of [
    [0, magic],
    [4, clusterSize],
    [8, tableClusters],
    [12, 1],
    [featuresAt, features],
    [nameOffsetAt, name.length > 0 ? headerBytes : 0],
    [nameLengthAt, name.length],
  ]) {
    view.setUint32(at, value, true);
  }
  view.setBigUint64(40, BigInt(clusterSize), true);
  view.setBigUint64(sizeAt, BigInt(size), true);
  bytes.set(name, headerBytes);
  return bytes;
}
