/**
 * The qcow2 header and its extensions, to and from bytes (specification, "Header" and "Header
 * extensions"). Parsing checks every field against its bound before anything is believed.
 */
import { bytesOfName } from '../../../byte-names.js';
import { CowherdError, printable, cannotOpen } from '../../../errors.js';
import {
  maxBackingNameBytes,
  maxClusterBits,
  maxL1TableBytes,
  maxOffset,
  maxRefcountTableBytes,
  maxSnapshots,
  minClusterBits,
  minExtendedClusterBits,
} from '../../../limits.js';
import {
  type HeaderExtension,
  decodeExtensions,
  decodeName,
  encodeExtensions,
  extensionName,
  findExtension,
  ExtensionType,
} from './header-extensions.js';
import { knownFeatureTable, nameFeatures } from './feature-names.js';

const magic = 0x514649fb;
/** Bytes of the fields of a header of version 2. */
export const version2Length = 72;
const headerLengthAt = 100;
const version3MinLength = 104;
/** Bytes of those of version 3, as they are written. */
export const version3Length = 112;
const sectorSize = 512n;
/** Most entries that QEMU counts of an L1 table. */
const maxL1Entries = 0x7fffffffn;
/** Multiples of a sector below this are numbers exactly. */
const maxExactOffset = 2n ** 62n;

/** Bits of `incompatibleFeatures`. */
export const Incompatible = {
  dirty: 1,
  corrupt: 2,
  externalDataFile: 4,
  compressionType: 8,
  extendedL2: 16,
} as const;
const knownIncompatible = 31;

/** Bits of `compatibleFeatures`. */
export const Compatible = { lazyRefcounts: 1 } as const;

/** Bits of `autoclearFeatures`. */
export const Autoclear = { bitmaps: 1, rawExternalData: 2 } as const;
const knownAutoclear = 3;

/** Values of `cryptMethod`. */
export const CryptMethod = { none: 0, aes: 1, luks: 2 } as const;

/** How an image's compressed clusters are compressed. */
export type CompressionType = 'zlib' | 'zstd';

/** A header as it stands in the image; offsets and sizes in bytes. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly size: number;
  readonly cryptMethod: number;
  readonly l1Entries: number;
  readonly l1TableOffset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  /** The bits this engine knows, and of incompatible ones all below 32. */
  readonly incompatibleFeatures: number;
  readonly compatibleFeatures: number;
  readonly autoclearFeatures: number;
  /** Whether the image has autoclear features that this engine does not know, and so must clear. */
  readonly hasUnknownAutoclear: boolean;
  readonly refcountOrder: number;
  readonly compressionType: CompressionType;
  readonly backingFile: string | undefined;
  readonly extensions: readonly HeaderExtension[];
}

/** The bytes that every image begins with. */
export const qcow2Magic: readonly number[] = [24, 16, 8, 0].map(
  (shift) => (magic >>> shift) & 0xff,
);

/** Whether bytes begin with qcow2's magic number and a version this format has. */
export function isQcow2(bytes: Uint8Array): boolean {
  if (bytes.length < version2Length) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(0) === magic && view.getUint32(4) >= 2;
}

/**
 * Parses a header from the image's first cluster (or as much of it as the file has). What a check
 * reports and repairs is let pass `forCheck`.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE for a field out of its bounds, ERR_COWHERD_UNSUPPORTED for what
 *   no reader of this version may ignore
 */
export function decodeHeader(
  bytes: Uint8Array,
  filename: string,
  { forCheck = false } = {},
): Qcow2Header {
  const invalid = (message: string): CowherdError =>
    cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, message);
  if (bytes.length < version2Length) throw invalid('Image is too short for a qcow2 header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== magic) throw invalid('Image is not in qcow2 format');
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) {
    throw cannotOpen('ERR_COWHERD_UNSUPPORTED', filename, `Unsupported qcow2 version ${version}`);
  }
  if (version === 3 && bytes.length < version3MinLength) {
    throw invalid('Image is too short for a qcow2 header');
  }
  const bigValue = (offset: number, name: string): number => {
    const value = view.getBigUint64(offset);
    if (value > BigInt(maxOffset)) throw invalid(`${name} is beyond what can be addressed`);
    return Number(value);
  };
  const clusterBits = view.getUint32(20);
  if (clusterBits < minClusterBits || clusterBits > maxClusterBits) {
    throw invalid(`Unsupported cluster size: 2^${clusterBits}`);
  }
  const clusterSize = 2 ** clusterBits;
  const headerLength = fieldsLength(view);
  if (version === 3 && headerLength < version3MinLength) {
    throw invalid('qcow2 header too short');
  }
  if (headerLength > clusterSize) throw invalid('qcow2 header exceeds cluster size');
  const features = version === 3 ? decodeFeatures(view) : noFeatures;
  const backingFile = decodeBackingName(bytes, view, clusterSize, invalid);
  const extensionsEnd = bigValue(8, 'Backing file offset') || clusterSize;
  const extensions = decodeExtensions(bytes, headerLength, extensionsEnd, invalid);
  refuseUnknownFeatures(features, extensions, filename);
  const snapshotCount = view.getUint32(60);
  // A check follows a table that is too far away to nowhere, and says so.
  const farOffset = (offset: number, name: string): number => {
    const value = view.getBigUint64(offset);
    const isExact = value < maxExactOffset && value % BigInt(clusterSize) === 0n;
    return forCheck && isExact ? Number(value) : bigValue(offset, name);
  };
  const header: Qcow2Header = {
    version,
    clusterBits,
    size: decodeSize(view, clusterBits, features.incompatible, invalid),
    cryptMethod: view.getUint32(32),
    l1Entries: view.getUint32(36),
    l1TableOffset: bigValue(40, 'Active L1 table offset'),
    refcountTableOffset: farOffset(48, 'Reference count table offset'),
    refcountTableClusters: view.getUint32(56),
    snapshotCount,
    snapshotsOffset:
      snapshotCount === 0
        ? farOffset(64, 'Snapshot table offset')
        : bigValue(64, 'Snapshot table offset'),
    incompatibleFeatures: features.incompatible,
    compatibleFeatures: features.compatible,
    autoclearFeatures: features.autoclear,
    hasUnknownAutoclear: features.hasUnknownAutoclear,
    refcountOrder: version === 3 ? view.getUint32(96) : 4,
    compressionType: decodeCompressionType(bytes, headerLength, features.incompatible, invalid),
    backingFile,
    extensions,
  };
  checkBounds({ ...header, size: Number(view.getBigUint64(24)) }, invalid);
  if (!forCheck) checkRepairableBounds(header, invalid);
  return header;
}

/** The disk's size in whole sectors, which a number holds exactly if an L1 table can map them. */
function decodeSize(
  view: DataView,
  clusterBits: number,
  incompatible: number,
  invalid: (message: string) => CowherdError,
): number {
  const size = view.getBigUint64(24);
  const extendedL2 = (incompatible & Incompatible.extendedL2) !== 0;
  const reach = 1n << BigInt(2 * clusterBits - (extendedL2 ? 4 : 3));
  if (size > reach * maxL1Entries) throw invalid('Image is too big');
  return Number((size / sectorSize) * sectorSize);
}

/** The header cluster's leading bytes: header, extensions, backing file name. */
export function encodeHeader(header: Qcow2Header): Uint8Array {
  const headerLength = header.version === 3 ? version3Length : version2Length;
  const extensions = encodeExtensions(extensionsThatFit(header, headerLength));
  const name = bytesOfName(header.backingFile ?? '');
  const nameOffset = headerLength + extensions.length;
  const bytes = new Uint8Array(nameOffset + name.length);
  if (bytes.length > 2 ** header.clusterBits) {
    throw new CowherdError(
      'ERR_COWHERD_INVALID_ARGUMENT',
      'The header, with the names it holds, does not fit into one cluster',
    );
  }
  const view = new DataView(bytes.buffer);
  view.setUint32(0, magic);
  view.setUint32(4, header.version);
  view.setBigUint64(8, name.length > 0 ? BigInt(nameOffset) : 0n);
  view.setUint32(16, name.length);
  view.setUint32(20, header.clusterBits);
  view.setBigUint64(24, BigInt(header.size));
  view.setUint32(32, header.cryptMethod);
  view.setUint32(36, header.l1Entries);
  view.setBigUint64(40, BigInt(header.l1TableOffset));
  view.setBigUint64(48, BigInt(header.refcountTableOffset));
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  view.setBigUint64(64, BigInt(header.snapshotsOffset));
  if (header.version === 3) {
    view.setUint32(76, header.incompatibleFeatures);
    view.setUint32(84, header.compatibleFeatures);
    view.setUint32(92, header.autoclearFeatures);
    view.setUint32(96, header.refcountOrder);
    view.setUint32(headerLengthAt, headerLength);
    view.setUint8(104, header.compressionType === 'zstd' ? 1 : 0);
  }
  bytes.set(extensions, headerLength);
  bytes.set(name, nameOffset);
  return bytes;
}

/** The extensions; without the feature name table, a help for messages, where it has no room. */
function extensionsThatFit(header: Qcow2Header, headerLength: number): readonly HeaderExtension[] {
  const nameLength = bytesOfName(header.backingFile ?? '').length;
  const whole = headerLength + encodeExtensions(header.extensions).length + nameLength;
  if (whole <= 2 ** header.clusterBits) return header.extensions;
  return header.extensions.filter(({ type }) => type !== ExtensionType.featureNames);
}

/** The extensions of a new image. */
export function extensionsFor(
  version: 2 | 3,
  backingFormat: string | undefined,
  dataFile: string | undefined,
  encryptionHeader: Uint8Array | undefined,
): HeaderExtension[] {
  const extensions: HeaderExtension[] = [];
  const text = (value: string): Uint8Array => bytesOfName(value);
  if (backingFormat !== undefined) {
    extensions.push({ type: ExtensionType.backingFormat, data: text(backingFormat) });
  }
  if (dataFile !== undefined) {
    extensions.push({ type: ExtensionType.externalDataFile, data: text(dataFile) });
  }
  if (encryptionHeader !== undefined) {
    extensions.push({ type: ExtensionType.fullDiskEncryption, data: encryptionHeader });
  }
  if (version === 3) {
    extensions.push({ type: ExtensionType.featureNames, data: knownFeatureTable() });
  }
  return extensions;
}

/** Name of the backing file's format, where the image records it. */
export function backingFormatOf(header: Qcow2Header): string | undefined {
  return extensionName(header.extensions, ExtensionType.backingFormat);
}

/** Name of the external data file as stored, where the image has one. */
export function dataFileNameOf(header: Qcow2Header): string | undefined {
  return extensionName(header.extensions, ExtensionType.externalDataFile);
}

/** Bytes of the fields of a header that is known to be one: its extensions begin behind them. */
export function fieldsLength(header: DataView): number {
  return header.getUint32(4) === 3 ? header.getUint32(headerLengthAt) : version2Length;
}

/** Host offset of the bytes that hold the feature words: 72 to 96, all within the first sector. */
export const featureWordsOffset = 72;

interface Features {
  readonly incompatible: number;
  readonly autoclear: number;
  readonly hasUnknownAutoclear: boolean;
  readonly compatible: number;
  /** Incompatible bits 32 to 63. */
  readonly highIncompatible: number;
}

const noFeatures: Features = {
  incompatible: 0,
  compatible: 0,
  autoclear: 0,
  hasUnknownAutoclear: false,
  highIncompatible: 0,
};

function decodeFeatures(view: DataView): Features {
  const high = view.getUint32(72);
  return {
    incompatible: view.getUint32(76),
    compatible: view.getUint32(84),
    // Unknown autoclear bits are to be cleared by whoever writes (specification, byte 88).
    autoclear: view.getUint32(92) & knownAutoclear,
    hasUnknownAutoclear: view.getUint32(88) !== 0 || (view.getUint32(92) & ~knownAutoclear) !== 0,
    highIncompatible: high,
  };
}

function refuseUnknownFeatures(
  features: Features,
  extensions: readonly HeaderExtension[],
  filename: string,
): void {
  const unknown =
    BigInt(features.highIncompatible) * 2n ** 32n +
    BigInt((features.incompatible & ~knownIncompatible) >>> 0);
  if (unknown === 0n) return;
  const table = findExtension(extensions, ExtensionType.featureNames);
  const names = nameFeatures(table?.data, 'incompatible', unknown);
  throw cannotOpen(
    'ERR_COWHERD_UNSUPPORTED',
    filename,
    `Unsupported qcow2 feature(s): ${printable(names.join(', '))}`,
  );
}

function decodeBackingName(
  bytes: Uint8Array,
  view: DataView,
  clusterSize: number,
  invalid: (message: string) => CowherdError,
): string | undefined {
  const offset = view.getBigUint64(8);
  const length = view.getUint32(16);
  if (offset === 0n) return undefined;
  if (length > maxBackingNameBytes || offset + BigInt(length) > BigInt(clusterSize)) {
    throw invalid('Backing file name too long');
  }
  const start = Number(offset);
  if (start + length > bytes.length) throw invalid('Backing file name lies beyond the file');
  return decodeName(bytes.subarray(start, start + length));
}

function decodeCompressionType(
  bytes: Uint8Array,
  headerLength: number,
  incompatible: number,
  invalid: (message: string) => CowherdError,
): CompressionType {
  const value = headerLength > 104 ? bytes[104] : 0;
  if (value > 1) throw invalid(`Unknown compression type: ${value}`);
  const flagged = (incompatible & Incompatible.compressionType) !== 0;
  if (flagged !== (value !== 0)) {
    throw invalid('Compression type and its incompatible feature bit contradict each other');
  }
  return value === 1 ? 'zstd' : 'zlib';
}

function checkBounds(header: Qcow2Header, invalid: (message: string) => CowherdError): void {
  const clusterSize = 2 ** header.clusterBits;
  const aligned = (offset: number, name: string): void => {
    if (offset % clusterSize !== 0) throw invalid(`${name} is not aligned to a cluster`);
  };
  const extendedL2 = (header.incompatibleFeatures & Incompatible.extendedL2) !== 0;
  if (extendedL2 && header.clusterBits < minExtendedClusterBits) {
    throw invalid('Extended L2 entries need clusters of at least 16 KiB');
  }
  if (header.refcountOrder > 6)
    throw invalid('Reference count entry width too large; may not exceed 64 bits');
  if (header.cryptMethod > CryptMethod.luks) {
    throw invalid(`Unsupported encryption method ${header.cryptMethod}`);
  }
  const isEncrypted = header.extensions.some(
    ({ type }) => type === ExtensionType.fullDiskEncryption,
  );
  if (isEncrypted && header.cryptMethod !== CryptMethod.luks) {
    throw invalid('CRYPTO header extension only expected with LUKS encryption method');
  }
  if (header.l1Entries * 8 > maxL1TableBytes) throw invalid('Active L1 table too large');
  aligned(header.l1TableOffset, 'Active L1 table offset');
  const entriesPerTable = clusterSize / (extendedL2 ? 16 : 8);
  if (header.l1Entries < Math.ceil(header.size / (entriesPerTable * clusterSize))) {
    throw invalid('L1 table is too small');
  }
  if (header.refcountTableClusters * clusterSize > maxRefcountTableBytes) {
    throw invalid('Image contains a too large reference count table');
  }
  aligned(header.refcountTableOffset, 'Reference count table offset');
  if (
    (header.autoclearFeatures & Autoclear.rawExternalData) !== 0 &&
    (header.incompatibleFeatures & Incompatible.externalDataFile) === 0
  ) {
    throw invalid('Raw external data bit set on an image without an external data file');
  }
}

/** Bounds whose violation a check reports, and a repair puts right. */
function checkRepairableBounds(
  header: Qcow2Header,
  invalid: (message: string) => CowherdError,
): void {
  if (header.refcountTableClusters === 0) {
    throw invalid('Image does not contain a reference count table');
  }
  if (header.snapshotCount > maxSnapshots) throw invalid('Snapshot table too large');
  if (header.snapshotsOffset % 2 ** header.clusterBits !== 0) {
    throw invalid('Snapshot table offset is not aligned to a cluster');
  }
}
