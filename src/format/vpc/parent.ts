/** The parent of a differencing VHD image, as the image's header tells where it is. */
import { maxParentPathBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { invalidImage } from '../failures.js';
import { decodeUtf16, nameOfAbsolutePath, nameOfRelativePath } from './parent-path.js';

/** Where the header's eight locators begin; each takes 24 bytes. */
const locatorsAt = 576;
const locatorBytes = 24;
const locatorCount = 8;
/** The parent's name, for people: in UTF-16, big-endian. */
const unicodeNameAt = 64;
const unicodeNameBytes = 512;

/** Kinds of locators, by their codes; Windows writes the first two, Xen the others as well. */
const Locator = {
  relativePath: codeOf('W2ru'),
  absolutePath: codeOf('W2ku'),
  url: codeOf('MacX'),
} as const;

/** Where the header has the parent's unique id, and bytes of it. */
const parentIdAt = 40;
const parentIdBytes = 16;

/** What the header says of the parent. */
interface VhdParent {
  /** Relative to the image's folder. */
  readonly name: string;
  /** Its unique id, in hexadecimal; absent where the header has none. */
  readonly identities?: readonly string[];
}

/**
 * The parent: where it is, and which it is. The time of its last change, which is there as well, is not
 * looked at: copying changes it.
 *
 * @param header `vhdHeaderBytes` of them
 * @throws ERR_COWHERD_INVALID_IMAGE if it does not say where
 */
export async function findVhdParent(file: StorageFile, header: Uint8Array): Promise<VhdParent> {
  const name = await findName(file, header);
  const id = header.subarray(parentIdAt, parentIdAt + parentIdBytes);
  if (id.every((byte) => byte === 0)) return { name };
  return { name, identities: [Buffer.from(id).toString('hex')] };
}

async function findName(file: StorageFile, header: Uint8Array): Promise<string> {
  const paths = new Map<number, Uint8Array>();
  for (let index = 0; index < locatorCount; index++) {
    const locator = header.subarray(locatorsAt + index * locatorBytes);
    const code = new DataView(locator.buffer, locator.byteOffset).getUint32(0);
    const isKnown = Object.values<number>(Locator).includes(code);
    if (isKnown && !paths.has(code)) paths.set(code, await readPath(file, locator));
  }
  const relative = paths.get(Locator.relativePath);
  if (relative !== undefined) return nameOfRelativePath(decodeUtf16(relative));
  const url = paths.get(Locator.url);
  const fromUrl = url && pathOfUrl(Buffer.from(url).toString('utf8'));
  if (fromUrl !== undefined) return fromUrl;
  const absolute = paths.get(Locator.absolutePath);
  if (absolute !== undefined) return nameOfAbsolutePath(decodeUtf16(absolute));
  const name = Buffer.from(header.subarray(unicodeNameAt, unicodeNameAt + unicodeNameBytes));
  const shown = nameOfAbsolutePath(decodeUtf16(name.swap16()));
  if (shown === '') throw invalidImage(file.filename, 'The image does not say where its parent is');
  return shown;
}

async function readPath(file: StorageFile, locator: Uint8Array): Promise<Uint8Array> {
  const view = new DataView(locator.buffer, locator.byteOffset);
  const length = view.getUint32(8);
  const offset = Number(view.getBigUint64(16));
  if (length > maxParentPathBytes || offset + length > (await file.size())) {
    throw invalidImage(file.filename, 'Invalid parent locator');
  }
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return bytes;
}

/** The path of a relative URL, as Xen writes it (`file://./parent.vhd`); undefined for others. */
function pathOfUrl(url: string): string | undefined {
  const path = /^file:\/\/(\.{1,2}\/[^\0]*)/.exec(url)?.[1];
  try {
    return path && decodeURIComponent(path);
  } catch {
    return undefined;
  }
}

function codeOf(text: string): number {
  return Buffer.from(text, 'latin1').readUInt32BE();
}
