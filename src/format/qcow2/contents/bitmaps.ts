/** The directory of persistent bitmaps (specification, "Bitmaps extension" and "Bitmap directory"). */
import { bytesOfName } from '../../../byte-names.js';
import { type CowherdError, printable, problemWith } from '../../../errors.js';
import {
  maxBitmapBytes,
  maxBitmapDirectoryBytes,
  maxBitmapGranularityBits,
  maxBitmapNameBytes,
  maxBitmaps,
  minBitmapGranularityBits,
} from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import {
  bitmapsExtensionLength,
  bitmapsPlaceOf,
  ExtensionType,
  findExtension,
} from '../layout/header-extensions.js';
import { Autoclear, type Qcow2Header } from '../layout/header.js';
import { decodeText } from '../layout/stored-text.js';

const entryLength = 24;
const flagsAt = 12;
/** A bitmap that records what changes; QEMU knows no other type. */
const dirtyTracking = 1;

/** Flags of a bitmap; QEMU knows no others. */
const Flag = { inUse: 1, auto: 2 } as const;

/** One bitmap of the directory. */
export interface PersistentBitmap {
  readonly name: string;
  /** Host offset in bytes and entry count of its table. */
  readonly tableOffset: number;
  readonly tableEntries: number;
  readonly granularityBits: number;
  readonly inUse: boolean;
  readonly auto: boolean;
  /** Whether the entry says nothing that QEMU does not know. */
  readonly isPlain: boolean;
}

/** The bitmaps of an image and where their directory lies. */
export interface BitmapDirectory {
  readonly bitmaps: readonly PersistentBitmap[];
  readonly directoryOffset: number;
  readonly directoryBytes: number;
}

/** Where the directory lies that the header names, if it names one that can be trusted. */
export function bitmapDirectoryPlace(
  header: Qcow2Header,
): { readonly offset: number; readonly length: number } | undefined {
  const place = bitmapsPlaceOf(header.extensions);
  if (place === undefined || !trustsBitmaps(header)) return undefined;
  const length = Math.min(place.bitmapsBytes, maxBitmapDirectoryBytes);
  return { offset: place.bitmapsOffset, length };
}

/** Whether nobody has written to the image who does not know of bitmaps. */
function trustsBitmaps(header: Qcow2Header): boolean {
  return (header.autoclearFeatures & Autoclear.bitmaps) !== 0;
}

/** Reads the bitmap directory; undefined where the image has none, or none that can be trusted. */
export async function readBitmaps(
  file: StorageFile,
  header: Qcow2Header,
): Promise<BitmapDirectory | undefined> {
  const extension = findExtension(header.extensions, ExtensionType.bitmaps);
  if (extension === undefined || !trustsBitmaps(header)) return undefined;
  const { filename } = file;
  const invalid = (message: string): CowherdError =>
    problemWith('ERR_COWHERD_INVALID_IMAGE', filename, message);
  if (extension.data.length !== bitmapsExtensionLength)
    throw invalid('bitmaps_ext: Invalid extension length');
  const place = bitmapsPlaceOf(header.extensions)!;
  const { bitmapCount: count, bitmapsOffset: directoryOffset, bitmapsBytes } = place;
  if (count === 0 || count > maxBitmaps)
    throw invalid(`bitmaps_ext: invalid number of bitmaps (${count})`);
  if (bitmapsBytes > maxBitmapDirectoryBytes) throw invalid('bitmaps_ext: directory too large');
  if (directoryOffset % 2 ** header.clusterBits !== 0)
    throw invalid('bitmaps_ext: unaligned directory');
  if (directoryOffset + bitmapsBytes > (await file.size())) {
    throw invalid('bitmaps_ext: directory lies beyond the end of the file');
  }
  const bytes = new Uint8Array(bitmapsBytes);
  await file.read(bytes, directoryOffset);
  const bitmaps = decodeDirectory(bytes);
  if (bitmaps?.length !== count) throw invalid('Broken bitmap directory');
  return { bitmaps, directoryOffset, directoryBytes: bitmapsBytes };
}

/** The bitmaps of a directory; undefined if it is broken. */
function decodeDirectory(bytes: Uint8Array): PersistentBitmap[] | undefined {
  const view = new DataView(bytes.buffer);
  const bitmaps: PersistentBitmap[] = [];
  let offset = 0;
  while (offset < bytes.length) {
    if (offset + entryLength > bytes.length) return undefined;
    const nameLength = view.getUint16(offset + 18);
    const extraLength = view.getUint32(offset + 20);
    const nameStart = offset + entryLength + extraLength;
    if (nameStart + nameLength > bytes.length) return undefined;
    const flags = view.getUint32(offset + flagsAt);
    const isKnown = view.getUint8(offset + 16) === dirtyTracking && extraLength === 0;
    bitmaps.push({
      name: decodeText(bytes.subarray(nameStart, nameStart + nameLength)),
      tableOffset: Number(view.getBigUint64(offset)),
      tableEntries: view.getUint32(offset + 8),
      granularityBits: view.getUint8(offset + 17),
      inUse: (flags & Flag.inUse) !== 0,
      auto: (flags & Flag.auto) !== 0,
      isPlain:
        isKnown && (flags & ~(Flag.inUse | Flag.auto)) === 0 && nameLength <= maxBitmapNameBytes,
    });
    offset = Math.ceil((nameStart + nameLength) / 8) * 8;
  }
  return bitmaps;
}

/** Bytes of a bitmap's entry in the directory. */
export function bitmapEntryBytes(name: string): number {
  return Math.ceil((entryLength + bytesOfName(name).length) / 8) * 8;
}

/** The bytes of a directory. */
export function encodeBitmaps(bitmaps: readonly PersistentBitmap[]): Uint8Array {
  const bytes = new Uint8Array(bitmaps.reduce((sum, { name }) => sum + bitmapEntryBytes(name), 0));
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const { name, tableOffset, tableEntries, granularityBits, inUse, auto } of bitmaps) {
    const nameBytes = bytesOfName(name);
    view.setBigUint64(offset, BigInt(tableOffset));
    view.setUint32(offset + 8, tableEntries);
    view.setUint32(offset + flagsAt, (inUse ? Flag.inUse : 0) | (auto ? Flag.auto : 0));
    view.setUint8(offset + 16, dirtyTracking);
    view.setUint8(offset + 17, granularityBits);
    view.setUint16(offset + 18, nameBytes.length);
    bytes.set(nameBytes, offset + entryLength);
    offset += bitmapEntryBytes(name);
  }
  return bytes;
}

/** Clusters of bits that a bitmap of a disk has, as many as its table has entries. */
export function bitmapClusters(size: number, granularityBits: number, clusterSize: number): number {
  const bytes = Math.ceil(Math.ceil(size / 2 ** granularityBits) / 8);
  return Math.ceil(bytes / clusterSize);
}

/** What is wrong with a bitmap, in QEMU's words; undefined if nothing is. Its table is not looked at. */
export function bitmapFault(
  bitmap: PersistentBitmap,
  { size, clusterBits }: Pick<Qcow2Header, 'size' | 'clusterBits'>,
): string | undefined {
  const { name, tableOffset, tableEntries, granularityBits, inUse, isPlain } = bitmap;
  const clusterSize = 2 ** clusterBits;
  const isKnown =
    granularityBits >= minBitmapGranularityBits && granularityBits <= maxBitmapGranularityBits;
  const isPlaced = tableOffset !== 0 && tableOffset % clusterSize === 0;
  const fits = tableEntries > 0 && tableEntries * clusterSize <= maxBitmapBytes;
  const entries = bitmapClusters(size, granularityBits, clusterSize);
  if (!isPlain || !isKnown || !isPlaced || !fits || (!inUse && tableEntries < entries)) {
    return `Bitmap '${printable(name)}' doesn't satisfy the constraints`;
  }
  if (inUse || tableEntries === entries) return undefined;
  return `Could not read bitmap '${printable(name)}' from image: Invalid argument`;
}
