/**
 * Another backing file's name, or other extensions, in the header of an open image. The name, and what extensions
 * do not fit into its first sector, lie behind that sector, and only the sector changes at once. So the name is
 * first written where nothing lies, the sector is made to point there, and with no more extensions than fit into
 * it; then everything gets its place, and the sector is changed once more.
 */
import { bytesOfName } from '../../../byte-names.js';
import { decodeHeader, fieldsLength } from '../layout/header.js';
import {
  type BitmapsPlace,
  ExtensionType,
  type HeaderExtension,
  encodeExtensions,
  findExtensionData,
} from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';

const sectorSize = 512;
const nameOffsetAt = 8;
const nameLengthAt = 16;

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

/** What a header says behind its fields. */
export interface HeaderNames {
  readonly backingFile: string | undefined;
  readonly extensions: readonly HeaderExtension[];
}

/** The header of an open image as it stands in the file, and how it comes to say something else. */
export class HeaderBegin {
  readonly #metadata: Qcow2Metadata;
  readonly #cluster: Uint8Array;
  readonly names: HeaderNames;

  private constructor(metadata: Qcow2Metadata, cluster: Uint8Array) {
    this.#metadata = metadata;
    this.#cluster = cluster;
    this.names = decodeHeader(cluster, metadata.file.filename);
  }

  /** Reads what stands in the file. */
  static async read(metadata: Qcow2Metadata): Promise<HeaderBegin> {
    const { file, geometry } = metadata;
    const bytes = new Uint8Array(Math.min(geometry.clusterSize, await file.size()));
    await file.read(bytes, 0);
    return new HeaderBegin(metadata, bytes);
  }

  /** Whether the place of the bitmaps changes with the first sector. */
  get holdsBitmapsPlace(): boolean {
    const sector = this.#cluster.subarray(0, sectorSize);
    const own = this.names.extensions.filter(({ type }) => type === ExtensionType.bitmaps);
    const start = fieldsLength(new DataView(this.#cluster.buffer));
    return (
      own.length === 1 && findExtensionData(sector, start, ExtensionType.bitmaps) !== undefined
    );
  }

  /** Whether the header's cluster has room for that. */
  hasRoomFor(wanted: HeaderNames): boolean {
    return this.#plan(wanted) !== undefined;
  }

  /**
   * Has the file say so, durably, while no queue runs a request.
   *
   * @param bitmaps where the bitmaps lie from then on; left out, where they did
   */
  async write(wanted: HeaderNames, bitmaps?: BitmapsPlace): Promise<void> {
    const { file, headerFile } = this.#metadata;
    const { last, meanwhile, used, fieldsEnd } = this.#plan(wanted)!;
    const { length } = last.bytes;
    const tail = last.bytes.subarray(sectorSize);
    let end = used;
    if (Buffer.compare(tail, this.#cluster.subarray(sectorSize, length)) !== 0) {
      if (meanwhile !== undefined) {
        await file.write(meanwhile.name, meanwhile.nameOffset);
        await file.flush();
        await headerFile.changeNames(meanwhile.bytes, fieldsEnd, bitmaps);
        end = meanwhile.nameOffset + meanwhile.name.length;
      }
      await file.write(tail, sectorSize);
      await file.flush();
    }
    await headerFile.changeNames(last.bytes, fieldsEnd, bitmaps);
    // Nothing points at what is left of other names.
    const left = Math.max(sectorSize, length);
    if (end > left) await file.write(new Uint8Array(end - left), left);
    await file.flush();
  }

  #plan({ backingFile, extensions: all }: HeaderNames): Plan | undefined {
    const { clusterSize } = this.#metadata.geometry;
    const view = new DataView(this.#cluster.buffer);
    const fieldsEnd = fieldsLength(view);
    const fields = this.#cluster.subarray(0, fieldsEnd);
    const name = bytesOfName(backingFile ?? '');
    const few = all.filter(({ type }) => type !== ExtensionType.featureNames);
    const last = [all, few]
      .map((list) => beginOf(fields, list, name))
      .find(({ bytes }) => bytes.length <= clusterSize);
    if (last === undefined) return undefined;
    const usedNow = usedBytes(view, fieldsEnd, this.names.extensions);
    const used = Math.max(usedNow, last.bytes.length);
    const meanwhile = beginOf(fields, few, name, Math.max(sectorSize, Math.ceil(used / 8) * 8));
    const fits = meanwhile.nameOffset + name.length <= clusterSize;
    const isWhole = fits && meanwhile.bytes.length <= sectorSize;
    return { last, meanwhile: isWhole ? meanwhile : undefined, used, fieldsEnd };
  }
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
