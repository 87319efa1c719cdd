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
  const size = Number(view.getBigUint64(48, true));
  const reach = (tableBytes / qedEntryBytes) ** 2 * clusterSize;
  if (size % sectorSize !== 0 || size > Math.min(reach, maxOffset)) {
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
  const name = hasBacking ? await readName(file, word(56), word(60), clustersStart) : '';
  const backing = name === '' ? undefined : { name, format: isRaw ? 'raw' : undefined };
  return { ...header, needsCheck: (features & Feature.needsCheck) !== 0, backing };
}

/** Says in the header, durably, that the image was checked. Its tables are durable by then. */
export async function markQedChecked(file: StorageFile): Promise<void> {
  const features = new Uint8Array(8);
  await file.read(features, featuresAt);
  features[0] &= ~Feature.needsCheck;
  await file.write(features, featuresAt);
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
    [56, name.length > 0 ? headerBytes : 0],
    [60, name.length],
  ]) {
    view.setUint32(at, value, true);
  }
  view.setBigUint64(40, BigInt(clusterSize), true);
  view.setBigUint64(48, BigInt(size), true);
  bytes.set(name, headerBytes);
  return bytes;
}
