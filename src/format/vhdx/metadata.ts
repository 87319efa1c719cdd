/** The metadata region of a VHDX image ([MS-VHDX] 2.6): from bytes to facts, and back. */
import { maxParentLocatorBytes, maxVhdxDiskBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { decodeUtf16, nameOfAbsolutePath, nameOfRelativePath } from '../vpc/parent-path.js';
import { encodeGuid, guidAt, guidBytes, newGuid, noGuid } from './guid.js';
import { type FileRange, hasSignature } from './header.js';

const tableBytes = 64 * 1024;
const maxEntries = 2047;
const entryBytes = 32;
/** Least and most bytes of a payload block. */
export const minBlockSize = 1024 * 1024;
export const maxBlockSize = 256 * 1024 * 1024;
/** Bits of an entry. */
const Flag = { user: 1, disk: 2, required: 4 } as const;
/** Bits of the file parameters. */
const keepsBlocks = 1;
const hasParent = 2;
/** Bytes of a sector of new images. */
export const newSectorSize = 512;

/** Items that every image has, and the least bytes of each. */
const Item = {
  fileParameters: ['CAA16737-FA36-4D43-B3B6-33F0AA44E76B', 8],
  diskSize: ['2FA54224-CD1B-4876-B211-5DBED83BF4B8', 8],
  diskId: ['BECA12AB-B2E6-4523-93EF-C309E000C746', 16],
  logicalSectorSize: ['8141BF1D-A96F-4709-BA47-F233A8FAAB5F', 4],
  physicalSectorSize: ['CDA348C7-445D-4471-9CC9-E9885251C556', 4],
} as const;
/** The item of images that stand on another one. */
const parentLocatorId = 'A8D35F2D-B30B-454D-ABF7-D3D84834AB0C';
/** The one kind of parent that is known: a VHDX image. */
const vhdxParentId = 'B04AEFB7-D19E-4A81-B789-25B8E9445913';
const locatorHeaderBytes = 20;
const locatorEntryBytes = 12;
/** Keys under which it says where the parent is, and which it is; and bytes of the longest. */
const pathKeys = ['relative_path', 'absolute_win32_path', 'volume_path'];
/** While disks are merged either of these may be the right one ([MS-VHDX] 2.6.2.6.3). */
const linkageKeys = ['parent_linkage', 'parent_linkage2'];
const longestKey = 2 * 'absolute_win32_path'.length;

/** What the metadata say, in bytes. */
export interface VhdxMetadata {
  readonly size: number;
  /** Of a payload block, a power of two. */
  readonly blockSize: number;
  readonly sectorSize: number;
  /** Undefined if it has none. */
  readonly parent: VhdxParent | undefined;
}

/** What a parent locator says. */
export interface VhdxParent {
  /** Name of the parent's file, relative to the image's folder. */
  readonly name: string;
  /** GUIDs, one of which the parent has as that of its data; absent where it says none. */
  readonly identities?: readonly string[];
}

/**
 * Reads the metadata.
 *
 * @param file as it is once the log has been replayed
 * @throws ERR_COWHERD_INVALID_IMAGE, ERR_COWHERD_UNSUPPORTED for what has to be known and is not
 */
export async function readVhdxMetadata(
  file: StorageFile,
  region: FileRange,
): Promise<VhdxMetadata> {
  const { filename } = file;
  const items = await readItems(file, region);
  const read = async ([id, least]: (typeof Item)[keyof typeof Item]): Promise<DataView> => {
    const item = items.get(id);
    if (item === undefined || item.length < least) {
      throw invalidImage(filename, `The VHDX metadata item ${id} is missing`);
    }
    return readItem(file, { offset: item.offset, length: least });
  };
  const parameters = await read(Item.fileParameters);
  const blockSize = parameters.getUint32(0, true);
  if (blockSize < minBlockSize || blockSize > maxBlockSize || (blockSize & (blockSize - 1)) !== 0) {
    throw invalidImage(filename, `Invalid VHDX block size ${blockSize}`);
  }
  const sectorSize = (await read(Item.logicalSectorSize)).getUint32(0, true);
  if (sectorSize !== 512 && sectorSize !== 4096) {
    throw invalidImage(filename, `Invalid VHDX logical sector size ${sectorSize}`);
  }
  await read(Item.physicalSectorSize);
  await read(Item.diskId);
  const size = Number((await read(Item.diskSize)).getBigUint64(0, true));
  if (size > maxVhdxDiskBytes || size % sectorSize !== 0) {
    throw invalidImage(filename, `Invalid VHDX disk size ${size}`);
  }
  if ((parameters.getUint32(4, true) & hasParent) === 0) {
    return { size, blockSize, sectorSize, parent: undefined };
  }
  const locator = items.get(parentLocatorId);
  if (locator === undefined || locator.length > maxParentLocatorBytes) {
    throw invalidImage(filename, 'The VHDX image has a parent, and does not say where it is');
  }
  const parent = parseLocator(await readItem(file, locator), filename);
  return { size, blockSize, sectorSize, parent };
}

/** The bytes of the metadata of an image without a parent. @param isFixed whether its blocks keep their places */
export function encodeVhdxMetadata({
  size,
  blockSize,
  isFixed,
}: {
  readonly size: number;
  readonly blockSize: number;
  readonly isFixed: boolean;
}): Uint8Array {
  const words = (...values: readonly number[]): Uint8Array => {
    const view = new DataView(new ArrayBuffer(values.length * 4));
    for (const [index, value] of values.entries()) view.setUint32(index * 4, value, true);
    return new Uint8Array(view.buffer);
  };
  const ofDisk = Flag.required | Flag.disk;
  const items = [
    {
      item: Item.fileParameters,
      flags: Flag.required,
      value: words(blockSize, isFixed ? keepsBlocks : 0),
    },
    {
      item: Item.diskSize,
      flags: ofDisk,
      value: words(size % 2 ** 32, Math.floor(size / 2 ** 32)),
    },
    { item: Item.diskId, flags: ofDisk, value: newGuid() },
    { item: Item.logicalSectorSize, flags: ofDisk, value: words(newSectorSize) },
    { item: Item.physicalSectorSize, flags: ofDisk, value: words(newSectorSize) },
  ];
  const valueBytes = items.reduce((sum, { value }) => sum + value.length, 0);
  const bytes = new Uint8Array(tableBytes + valueBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from('metadata', 'latin1'));
  view.setUint16(10, items.length, true);
  let offset = tableBytes;
  for (const [index, { item, flags, value }] of items.entries()) {
    const at = (index + 1) * entryBytes;
    bytes.set(encodeGuid(item[0]), at);
    view.setUint32(at + guidBytes, offset, true);
    view.setUint32(at + guidBytes + 4, value.length, true);
    view.setUint32(at + guidBytes + 8, flags, true);
    bytes.set(value, offset);
    offset += value.length;
  }
  return bytes;
}

/** Where the items of the system lie in the file, by their ids. */
async function readItems(
  file: StorageFile,
  region: FileRange,
): Promise<ReadonlyMap<string, FileRange>> {
  const { filename } = file;
  const bytes = new Uint8Array(tableBytes);
  await file.read(bytes, region.offset);
  const view = new DataView(bytes.buffer);
  const count = view.getUint16(10, true);
  if (!hasSignature(bytes, 'metadata') || count > maxEntries || region.length < tableBytes) {
    throw invalidImage(filename, 'Invalid VHDX metadata table');
  }
  const known = [...Object.values(Item).map(([id]) => id as string), parentLocatorId];
  const items = new Map<string, FileRange>();
  for (let at = entryBytes; at <= count * entryBytes; at += entryBytes) {
    const id = guidAt(view, at);
    const offset = view.getUint32(at + guidBytes, true);
    const length = view.getUint32(at + guidBytes + 4, true);
    const flags = view.getUint32(at + guidBytes + 8, true);
    const isOurs = (flags & Flag.user) === 0 && known.includes(id);
    if (!isOurs && (flags & Flag.required) !== 0) {
      throw unsupportedImage(filename, `Unsupported VHDX metadata item ${id}`);
    }
    if (!isOurs) continue;
    if (items.has(id)) throw invalidImage(filename, `The VHDX metadata item ${id} is there twice`);
    if (offset < tableBytes || offset + length > region.length) {
      throw invalidImage(filename, `The VHDX metadata item ${id} lies outside its region`);
    }
    items.set(id, { offset: region.offset + offset, length });
  }
  return items;
}

async function readItem(file: StorageFile, { offset, length }: FileRange): Promise<DataView> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return new DataView(bytes.buffer);
}

/** What a parent locator says in pairs of keys and values, in UTF-16. */
function parseLocator(locator: DataView, filename: string): VhdxParent {
  const invalid = (why: string): Error => invalidImage(filename, why);
  if (locator.byteLength < locatorHeaderBytes) throw invalid('Invalid VHDX parent locator');
  const kind = guidAt(locator, 0);
  if (kind !== vhdxParentId) {
    throw unsupportedImage(filename, `Unsupported VHDX parent locator of type ${kind}`);
  }
  const count = locator.getUint16(18, true);
  if (locatorHeaderBytes + count * locatorEntryBytes > locator.byteLength) {
    throw invalid('Invalid VHDX parent locator');
  }
  const text = (offset: number, length: number): string => {
    if (offset + length > locator.byteLength) throw invalid('Invalid VHDX parent locator');
    return decodeUtf16(new Uint8Array(locator.buffer, offset, length));
  };
  const values = new Map<string, string>();
  const knownKeys = [...pathKeys, ...linkageKeys];
  for (let index = 0; index < count; index++) {
    const at = locatorHeaderBytes + index * locatorEntryBytes;
    const keyLength = locator.getUint16(at + 8, true);
    // A value that nobody asks for is not looked at: there may be many, and each the same long bytes.
    if (keyLength > longestKey) continue;
    const key = text(locator.getUint32(at, true), keyLength);
    if (!knownKeys.includes(key) || values.has(key)) continue;
    values.set(key, text(locator.getUint32(at + 4, true), locator.getUint16(at + 10, true)));
  }
  const name = nameOf(values);
  if (name === '') throw invalid('The VHDX image has a parent, and does not say where it is');
  const linkages = linkageKeys.map((key) => values.get(key)).filter((id) => id !== undefined);
  if (linkages.length === 0) return { name };
  return { name, identities: linkages.map(idOfLinkage) };
}

/** The GUID that a linkage names in braces, as `guidAt` has it. */
function idOfLinkage(linkage: string): string {
  return linkage
    .slice(0, '{}'.length + noGuid.length)
    .replace(/^\{|\}$/g, '')
    .toUpperCase();
}

/** The parent's name, from a locator's values by their keys; empty if it says none. */
function nameOf(values: ReadonlyMap<string, string>): string {
  const [relative = '', absolute = '', volume = ''] = pathKeys.map((key) => values.get(key));
  if (relative !== '') return nameOfRelativePath(relative);
  return nameOfAbsolutePath(absolute === '' ? volume : absolute);
}
