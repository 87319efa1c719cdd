/** The directory of persistent bitmaps (specification, "Bitmaps extension"); read, never written. */
import { type CowherdError, problemWith } from '../../../errors.js';
import { maxBitmapDirectoryBytes, maxBitmaps } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import { ExtensionType, findExtension } from '../layout/header-extensions.js';
import { Autoclear, type Qcow2Header } from '../layout/header.js';
import { decodeText } from '../layout/stored-text.js';

const extensionLength = 24;
const entryLength = 24;
const flagInUse = 1;
const flagAuto = 2;

/** One bitmap of the directory. */
export interface PersistentBitmap {
  readonly name: string;
  /** Host offset in bytes and entry count of its table. */
  readonly tableOffset: number;
  readonly tableEntries: number;
  readonly granularityBits: number;
  readonly inUse: boolean;
  readonly auto: boolean;
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
  const extension = findExtension(header.extensions, ExtensionType.bitmaps);
  if (extension?.data.length !== extensionLength) return undefined;
  if ((header.autoclearFeatures & Autoclear.bitmaps) === 0) return undefined;
  const fields = new DataView(extension.data.buffer, extension.data.byteOffset);
  const length = Math.min(Number(fields.getBigUint64(8)), maxBitmapDirectoryBytes);
  return { offset: Number(fields.getBigUint64(16)), length };
}

/** Reads the bitmap directory; undefined where the image has none, or none that can be trusted. */
export async function readBitmaps(
  file: StorageFile,
  header: Qcow2Header,
): Promise<BitmapDirectory | undefined> {
  const extension = findExtension(header.extensions, ExtensionType.bitmaps);
  if (extension === undefined || (header.autoclearFeatures & Autoclear.bitmaps) === 0) {
    return undefined;
  }
  const { filename } = file;
  const invalid = (message: string): CowherdError =>
    problemWith('ERR_COWHERD_INVALID_IMAGE', filename, message);
  if (extension.data.length !== extensionLength)
    throw invalid('bitmaps_ext: Invalid extension length');
  const fields = new DataView(extension.data.buffer, extension.data.byteOffset);
  const count = fields.getUint32(0);
  const directoryBytes = Number(fields.getBigUint64(8));
  const directoryOffset = Number(fields.getBigUint64(16));
  if (count === 0 || count > maxBitmaps)
    throw invalid(`bitmaps_ext: invalid number of bitmaps (${count})`);
  if (directoryBytes > maxBitmapDirectoryBytes) throw invalid('bitmaps_ext: directory too large');
  if (directoryOffset % 2 ** header.clusterBits !== 0)
    throw invalid('bitmaps_ext: unaligned directory');
  if (directoryOffset + directoryBytes > (await file.size())) {
    throw invalid('bitmaps_ext: directory lies beyond the end of the file');
  }
  const bytes = new Uint8Array(directoryBytes);
  await file.read(bytes, directoryOffset);
  const view = new DataView(bytes.buffer);
  const bitmaps: PersistentBitmap[] = [];
  let offset = 0;
  while (offset < bytes.length) {
    if (offset + entryLength > bytes.length) throw invalid('Broken bitmap directory');
    const nameLength = view.getUint16(offset + 18);
    const nameStart = offset + entryLength + view.getUint32(offset + 20);
    if (nameStart + nameLength > bytes.length) throw invalid('Broken bitmap directory');
    const flags = view.getUint32(offset + 12);
    bitmaps.push({
      name: decodeText(bytes.subarray(nameStart, nameStart + nameLength)),
      tableOffset: Number(view.getBigUint64(offset)),
      tableEntries: view.getUint32(offset + 8),
      granularityBits: view.getUint8(offset + 17),
      inUse: (flags & flagInUse) !== 0,
      auto: (flags & flagAuto) !== 0,
    });
    offset = Math.ceil((nameStart + nameLength) / 8) * 8;
  }
  if (bitmaps.length !== count) throw invalid('Broken bitmap directory');
  return { bitmaps, directoryOffset, directoryBytes };
}
