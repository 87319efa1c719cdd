/**
 * Another name for the image below, in the header of an open image. The name, and what extensions of the header do
 * not fit into its first sector, lie behind that sector, and only the sector changes at once. So the new name is
 * written where nothing lies, the sector is made to point there, and with no more extensions than fit into it;
 * then everything gets its place, and the sector is changed once more.
 */
import { bytesOfName } from '../../../byte-names.js';
import { problemWith } from '../../../errors.js';
import { maxBackingNameBytes } from '../../../limits.js';
import type { BackingChange, BackingReference } from '../../driver.js';
import { Autoclear, decodeHeader, version2Length } from '../layout/header.js';
import {
  ExtensionType,
  type HeaderExtension,
  encodeExtensions,
} from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';

const sectorSize = 512;
const nameOffsetAt = 8;
const nameLengthAt = 16;
const headerLengthAt = 100;

/** The begin of a file, as it is to be. */
interface Begin {
  /** Fields and extensions, and the name if it follows them. */
  readonly bytes: Uint8Array;
  readonly name: Uint8Array;
  /** Where the name lies, in bytes. */
  readonly nameOffset: number;
}

/** How the header changes. */
interface Plan {
  readonly last: Begin;
  /** What stands there until the last is whole; undefined where there is no room for both. */
  readonly meanwhile: Begin | undefined;
  /** Bytes of the header's cluster that have been used, or are to be. */
  readonly used: number;
  /** Where extensions begin. */
  readonly fieldsEnd: number;
}

/** See the file's comment. */
export class Qcow2BackingChange implements BackingChange {
  readonly zeroesHide: boolean;
  readonly #metadata: Qcow2Metadata;

  constructor(metadata: Qcow2Metadata) {
    this.#metadata = metadata;
    this.zeroesHide = metadata.headerFile.header.version >= 3;
  }

  async check(backing: BackingReference | undefined): Promise<void> {
    this.#planned(await this.#read(), backing);
  }

  async write(backing: BackingReference | undefined): Promise<void> {
    const { file, headerFile } = this.#metadata;
    // The disk shows the same as before, so what is said of it by bitmaps stays true.
    await headerFile.clearAutoclear(Autoclear.bitmaps | Autoclear.rawExternalData);
    const cluster = await this.#read();
    const { last, meanwhile, used, fieldsEnd } = this.#planned(cluster, backing);
    const { length } = last.bytes;
    const tail = last.bytes.subarray(sectorSize);
    let end = used;
    if (Buffer.compare(tail, cluster.subarray(sectorSize, length)) !== 0) {
      if (meanwhile !== undefined) {
        await file.write(meanwhile.name, meanwhile.nameOffset);
        await file.flush();
        await headerFile.changeNames(meanwhile.bytes, fieldsEnd);
        end = meanwhile.nameOffset + meanwhile.name.length;
      }
      await file.write(tail, sectorSize);
      await file.flush();
    }
    await headerFile.changeNames(last.bytes, fieldsEnd);
    // Nothing points at what is left of other names.
    const left = Math.max(sectorSize, length);
    if (end > left) await file.write(new Uint8Array(end - left), left);
    await file.flush();
  }

  async #read(): Promise<Uint8Array> {
    const { file, geometry } = this.#metadata;
    const bytes = new Uint8Array(Math.min(geometry.clusterSize, await file.size()));
    await file.read(bytes, 0);
    return bytes;
  }

  /** @throws CowherdError for what the header cannot name */
  #planned(cluster: Uint8Array, backing: BackingReference | undefined): Plan {
    const { file, geometry } = this.#metadata;
    const { clusterSize } = geometry;
    const refuse = (why: string): never => {
      const operation = 'name backing';
      throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', file.filename, why, { operation });
    };
    const { version, autoclearFeatures, extensions } = decodeHeader(cluster, file.filename);
    const view = new DataView(cluster.buffer);
    const fieldsEnd = version === 3 ? view.getUint32(headerLengthAt) : version2Length;
    const fields = cluster.subarray(0, fieldsEnd);
    const name = bytesOfName(backing?.name ?? '');
    const isRaw = (autoclearFeatures & Autoclear.rawExternalData) !== 0;
    if (name.length > maxBackingNameBytes || (name.length > 0 && isRaw)) refuse('Invalid argument');
    const all = withFormat(extensions, backing?.format);
    const few = all.filter(({ type }) => type !== ExtensionType.featureNames);
    const last = [all, few]
      .map((list) => beginOf(fields, list, name))
      .find(({ bytes }) => bytes.length <= clusterSize);
    if (last === undefined) return refuse('No space left in the file header');
    const used = Math.max(usedBytes(view, fieldsEnd, extensions), last.bytes.length);
    const meanwhile = beginOf(fields, few, name, Math.max(sectorSize, Math.ceil(used / 8) * 8));
    const fits = meanwhile.nameOffset + name.length <= clusterSize;
    const isWhole = fits && meanwhile.bytes.length <= sectorSize;
    return { last, meanwhile: isWhole ? meanwhile : undefined, used, fieldsEnd };
  }
}

/** The extensions with that of the backing file's format, which comes first. */
function withFormat(
  extensions: readonly HeaderExtension[],
  format: string | undefined,
): readonly HeaderExtension[] {
  const others = extensions.filter(({ type }) => type !== ExtensionType.backingFormat);
  if (format === undefined) return others;
  return [{ type: ExtensionType.backingFormat, data: bytesOfName(format) }, ...others];
}

/** Bytes of the header that fields, extensions and the name take. */
function usedBytes(
  view: DataView,
  headerLength: number,
  extensions: readonly HeaderExtension[],
): number {
  const nameEnd = Number(view.getBigUint64(nameOffsetAt)) + view.getUint32(nameLengthAt);
  return Math.max(nameEnd, headerLength + encodeExtensions(extensions).length);
}

/** @param nameOffset left out, the name follows the extensions */
function beginOf(
  fields: Uint8Array,
  extensions: readonly HeaderExtension[],
  name: Uint8Array,
  nameOffset?: number,
): Begin {
  const list = encodeExtensions(extensions);
  const listEnd = fields.length + list.length;
  const at = nameOffset ?? listEnd;
  const bytes = new Uint8Array(nameOffset === undefined ? listEnd + name.length : listEnd);
  bytes.set(fields);
  bytes.set(list, fields.length);
  if (nameOffset === undefined) bytes.set(name, listEnd);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(nameOffsetAt, BigInt(name.length === 0 ? 0 : at));
  view.setUint32(nameLengthAt, name.length);
  return { bytes, name, nameOffset: at };
}
