/**
 * The begin of the file of an open image: version, features, extensions and the name of the image below. The name,
 * and what extensions do not fit into the first sector, lie behind that sector, and only the sector changes at
 * once. So the name is first written where nothing lies, the sector is made to point there, and with no more
 * extensions than fit into it; then everything gets its place, and the sector is changed once more.
 */
import {
  decodeHeader,
  featureWordsOffset,
  fieldsLength,
  version2Length,
  version3Length,
} from '../layout/header.js';
import {
  type BitmapsPlace,
  ExtensionType,
  type HeaderExtension,
  encodeExtensions,
  findExtensionData,
} from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import type { HeaderFeatures } from '../tables/live-header.js';

const sectorSize = 512;
const versionAt = 4;
const nameOffsetAt = 8;
const nameLengthAt = 16;
const refcountOrderAt = 96;
const headerLengthAt = 100;
const compressionTypeAt = 104;

/** What the begin of the file says. */
export interface BeginContents {
  readonly features: HeaderFeatures;
  readonly extensions: readonly HeaderExtension[];
  /** The name of the image below; empty for none. */
  readonly name: Uint8Array;
}

/** The begin of a file, as it is to be. */
interface Begin {
  /** Fields and extensions, and the name if it follows them. */
  readonly bytes: Uint8Array;
  readonly name: Uint8Array;
  /** Where the name lies, in bytes. */
  readonly nameOffset: number;
}

/** How the begin changes. */
interface Plan {
  readonly last: Begin;
  /** What stands there until the last is whole; undefined where there is no room for both. */
  readonly meanwhile: Begin | undefined;
  /** Bytes of the header's cluster that have been used, or are to be. */
  readonly used: number;
}

/** The begin of one image's file as it stands there. */
export class HeaderBegin {
  readonly #metadata: Qcow2Metadata;
  readonly #cluster: Uint8Array;
  readonly contents: BeginContents;

  private constructor(metadata: Qcow2Metadata, cluster: Uint8Array) {
    this.#metadata = metadata;
    this.#cluster = cluster;
    const { headerFile, file } = metadata;
    const { extensions } = decodeHeader(cluster, file.filename);
    const start = Number(this.#view.getBigUint64(nameOffsetAt));
    const length = start === 0 ? 0 : this.#view.getUint32(nameLengthAt);
    const name = cluster.slice(start, start + length);
    this.contents = { features: headerFile.header, extensions, name };
  }

  static async read(metadata: Qcow2Metadata): Promise<HeaderBegin> {
    const { file, geometry } = metadata;
    const bytes = new Uint8Array(Math.min(geometry.clusterSize, await file.size()));
    await file.read(bytes, 0);
    return new HeaderBegin(metadata, bytes);
  }

  /** Whether the place of the bitmaps changes with the first sector. */
  get holdsBitmapsPlace(): boolean {
    const sector = this.#cluster.subarray(0, sectorSize);
    const own = this.contents.extensions.filter(({ type }) => type === ExtensionType.bitmaps);
    const start = fieldsLength(this.#view);
    return (
      own.length === 1 && findExtensionData(sector, start, ExtensionType.bitmaps) !== undefined
    );
  }

  /** Whether the header's cluster has room for that. */
  hasRoomFor(wanted: BeginContents): boolean {
    return this.#plan(wanted) !== undefined;
  }

  /**
   * Has the file say so, durably, while no queue runs a request; whatever is cut off says the one or the other.
   *
   * @param bitmaps where the bitmaps lie from then on; left out, where they did
   */
  async write(wanted: BeginContents, bitmaps?: BitmapsPlace): Promise<void> {
    const { file, headerFile } = this.#metadata;
    const { features } = wanted;
    const { last, meanwhile, used } = this.#plan(wanted)!;
    const { length } = last.bytes;
    const tail = last.bytes.subarray(sectorSize);
    let end = used;
    if (Buffer.compare(tail, this.#cluster.subarray(sectorSize, length)) !== 0) {
      if (meanwhile !== undefined) {
        await file.write(meanwhile.name, meanwhile.nameOffset);
        await file.flush();
        await headerFile.changeBegin(meanwhile.bytes, features, bitmaps);
        end = meanwhile.nameOffset + meanwhile.name.length;
      }
      await file.write(tail, sectorSize);
      await file.flush();
    }
    await headerFile.changeBegin(last.bytes, features, bitmaps);
    // Nothing points at what is left of other names.
    const left = Math.max(sectorSize, length);
    if (end > left) await file.write(new Uint8Array(end - left), left);
    await file.flush();
  }

  /** @returns undefined where there is no room */
  #plan({ features, extensions, name }: BeginContents): Plan | undefined {
    const { clusterSize } = this.#metadata.geometry;
    const fields = this.#fields(features);
    const few = extensions.filter(({ type }) => type !== ExtensionType.featureNames);
    const last = [extensions, few]
      .map((list) => beginOf(fields, list, name))
      .find(({ bytes }) => bytes.length <= clusterSize);
    if (last === undefined) return undefined;
    const used = Math.max(this.#usedBytes, last.bytes.length);
    const meanwhile = beginOf(fields, few, name, Math.max(sectorSize, Math.ceil(used / 8) * 8));
    const fits = meanwhile.nameOffset + name.length <= clusterSize;
    const isWhole = fits && meanwhile.bytes.length <= sectorSize;
    return { last, meanwhile: isWhole ? meanwhile : undefined, used };
  }

  get #view(): DataView {
    return new DataView(this.#cluster.buffer);
  }

  /** Bytes of the header that fields, extensions and the name take. */
  get #usedBytes(): number {
    const { extensions } = this.contents;
    const view = this.#view;
    const nameEnd = Number(view.getBigUint64(nameOffsetAt)) + view.getUint32(nameLengthAt);
    return Math.max(nameEnd, fieldsLength(this.#view) + encodeExtensions(extensions).length);
  }

  /** The fields with those that features are told by; what is not known of a header of the same version stays. */
  #fields(features: HeaderFeatures): Uint8Array {
    const { version } = features;
    const isSame = this.#view.getUint32(versionAt) === version;
    const length = isSame
      ? fieldsLength(this.#view)
      : version === 2
        ? version2Length
        : version3Length;
    const fields = new Uint8Array(length);
    fields.set(this.#cluster.subarray(0, isSame ? length : version2Length));
    const view = new DataView(fields.buffer);
    view.setUint32(versionAt, version);
    if (version === 2) return fields;
    view.setUint32(featureWordsOffset + 4, features.incompatibleFeatures);
    view.setUint32(featureWordsOffset + 12, features.compatibleFeatures);
    view.setUint32(featureWordsOffset + 20, features.autoclearFeatures);
    view.setUint32(refcountOrderAt, features.refcountOrder);
    view.setUint32(headerLengthAt, length);
    if (length > compressionTypeAt) {
      view.setUint8(compressionTypeAt, features.compressionType === 'zstd' ? 1 : 0);
    }
    return fields;
  }
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
