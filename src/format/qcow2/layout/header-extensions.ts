/** The list of header extensions, to and from bytes (specification, "Header extensions"). */
import type { CowherdError } from '../../../errors.js';
import { decodeText } from './stored-text.js';

/** Types of header extensions. */
export const ExtensionType = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  fullDiskEncryption: 0x0537be77,
  externalDataFile: 0x44415441,
} as const;

/** One extension; unknown types are kept as they are. */
export interface HeaderExtension {
  readonly type: number;
  readonly data: Uint8Array;
}

/** Reads the extensions between two offsets of the header cluster. */
export function decodeExtensions(
  bytes: Uint8Array,
  start: number,
  end: number,
  invalid: (message: string) => CowherdError,
): HeaderExtension[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const extensions: HeaderExtension[] = [];
  // Beyond the file there are zeroes, which end the list.
  for (let offset = start; offset < end && offset + 8 <= bytes.length;) {
    const type = view.getUint32(offset);
    const length = view.getUint32(offset + 4);
    if (length > Math.min(end, bytes.length) - offset - 8)
      throw invalid('Header extension too large');
    if (type === ExtensionType.end) break;
    extensions.push({ type, data: bytes.slice(offset + 8, offset + 8 + length) });
    offset += 8 + Math.ceil(length / 8) * 8;
  }
  return extensions;
}

/** The bytes of a list of extensions, its end marker included. */
export function encodeExtensions(extensions: readonly HeaderExtension[]): Uint8Array {
  const padded = (length: number): number => Math.ceil(length / 8) * 8;
  const total = extensions.reduce((sum, { data }) => sum + 8 + padded(data.length), 8);
  const bytes = new Uint8Array(total);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const { type, data } of extensions) {
    view.setUint32(offset, type);
    view.setUint32(offset + 4, data.length);
    bytes.set(data, offset + 8);
    offset += 8 + padded(data.length);
  }
  return bytes;
}

/** A name that the header holds, undefined if it is empty. */
export function decodeName(bytes: Uint8Array): string | undefined {
  return decodeText(bytes) || undefined;
}

/** The extension of a type that counts: the last, as QEMU has it. */
export function findExtension(
  extensions: readonly HeaderExtension[],
  type: number,
): HeaderExtension | undefined {
  return extensions.findLast((candidate) => candidate.type === type);
}

/** The name that an extension holds, or undefined if it is absent or empty. */
export function extensionName(
  extensions: readonly HeaderExtension[],
  type: number,
): string | undefined {
  const extension = findExtension(extensions, type);
  return extension && decodeName(extension.data);
}

/** What the bitmaps extension says: how many there are, and where their directory lies, in bytes. */
export interface BitmapsPlace {
  readonly bitmapCount: number;
  readonly bitmapsOffset: number;
  readonly bitmapsBytes: number;
}

/** Bytes of the bitmaps extension. */
export const bitmapsExtensionLength = 24;

/** What the bitmaps extension says, if there is one of the right length. */
export function bitmapsPlaceOf(extensions: readonly HeaderExtension[]): BitmapsPlace | undefined {
  const extension = findExtension(extensions, ExtensionType.bitmaps);
  if (extension?.data.length !== bitmapsExtensionLength) return undefined;
  const fields = new DataView(extension.data.buffer, extension.data.byteOffset);
  return {
    bitmapCount: fields.getUint32(0),
    bitmapsBytes: Number(fields.getBigUint64(8)),
    bitmapsOffset: Number(fields.getBigUint64(16)),
  };
}

/** The data of a bitmaps extension. */
export function encodeBitmapsPlace(place: BitmapsPlace): Uint8Array {
  const data = new Uint8Array(bitmapsExtensionLength);
  const fields = new DataView(data.buffer);
  fields.setUint32(0, place.bitmapCount);
  fields.setBigUint64(8, BigInt(place.bitmapsBytes));
  fields.setBigUint64(16, BigInt(place.bitmapsOffset));
  return data;
}

/** The extensions of a header that says so of its bitmaps; in front, so that one sector holds it. */
export function withBitmaps(
  extensions: readonly HeaderExtension[],
  place: BitmapsPlace,
): readonly HeaderExtension[] {
  const others = extensions.filter(({ type }) => type !== ExtensionType.bitmaps);
  if (place.bitmapCount === 0) return others;
  return [{ type: ExtensionType.bitmaps, data: encodeBitmapsPlace(place) }, ...others];
}

/** The data of the extension of a type that counts, as a view of these bytes, if all of it lies there. */
export function findExtensionData(
  bytes: Uint8Array,
  start: number,
  wanted: number,
): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let found: Uint8Array | undefined;
  for (let offset = start; offset + 8 <= bytes.length;) {
    const type = view.getUint32(offset);
    const end = offset + 8 + view.getUint32(offset + 4);
    if (type === ExtensionType.end) break;
    if (type === wanted) found = end <= bytes.length ? bytes.subarray(offset + 8, end) : undefined;
    offset = Math.ceil(end / 8) * 8;
  }
  return found;
}
