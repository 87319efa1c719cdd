/** The header of a qcow image, the format's first version: from bytes to facts. All is big-endian. */
import { maxBackingNameBytes, maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { BackingReference } from '../driver.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { decodeText } from '../qcow2/layout/stored-text.js';

/** Bytes of an entry of a table. */
export const qcowEntryBytes = 8;

const headerBytes = 48;
const magic = 0x514649fb;
const version = 1;
const sectorSize = 512;
/** Of clusters, and of L2 tables: 512 B to 64 KiB. */
const leastBits = 9;
const mostBits = 16;
/** Most entries of the L1 table, QEMU's bound. */
const maxL1Entries = Math.floor(0x7fffffff / qcowEntryBytes);
const aes = 1;

/** What the header says, in bytes if nothing else is said. */
export interface QcowHeader {
  readonly size: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Of an L2 table. */
  readonly tableBytes: number;
  readonly l1TableOffset: number;
  readonly isEncrypted: boolean;
  /** Of the image's file. */
  readonly fileLength: number;
  readonly backing: BackingReference | undefined;
}

/**
 * Reads and checks the header.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE, ERR_COWHERD_UNSUPPORTED for other versions
 */
export async function readQcowHeader(file: StorageFile): Promise<QcowHeader> {
  const { filename } = file;
  const bytes = new Uint8Array(headerBytes);
  await file.read(bytes, 0);
  const view = new DataView(bytes.buffer);
  if (view.getUint32(0) !== magic) throw invalidImage(filename, 'Image not in qcow format');
  if (view.getUint32(4) !== version) {
    const why = `qcow (v1) does not support qcow version ${view.getUint32(4)}`;
    throw unsupportedImage(filename, why);
  }
  const size = Number(view.getBigUint64(24));
  if (size <= 1) {
    throw invalidImage(filename, 'Image size is too small (must be at least 2 bytes)');
  }
  const clusterBits = bytes[32];
  if (clusterBits < leastBits || clusterBits > mostBits) {
    throw invalidImage(filename, 'Cluster size must be between 512 and 64k');
  }
  const tableBytes = 2 ** bytes[33] * qcowEntryBytes;
  if (tableBytes < 2 ** leastBits || tableBytes > 2 ** mostBits) {
    throw invalidImage(filename, 'L2 table size must be between 512 and 64k');
  }
  const method = view.getUint32(36);
  if (method > aes) throw invalidImage(filename, 'invalid encryption method in qcow header');
  const clusterSize = 2 ** clusterBits;
  const l1Entries = Math.ceil(size / ((tableBytes / qcowEntryBytes) * clusterSize));
  if (size > maxOffset || l1Entries > maxL1Entries) throw invalidImage(filename, 'Image too large');
  const fileLength = await file.size();
  const l1TableOffset = Number(view.getBigUint64(40));
  if (l1TableOffset + l1Entries * qcowEntryBytes > fileLength) {
    throw invalidImage(filename, 'The L1 table lies beyond the end of the file');
  }
  const nameOffset = Number(view.getBigUint64(8));
  const name = nameOffset === 0 ? '' : await readName(file, nameOffset, view.getUint32(16));
  return {
    size: Math.floor(size / sectorSize) * sectorSize,
    clusterBits,
    clusterSize,
    tableBytes,
    l1TableOffset,
    isEncrypted: method === aes,
    fileLength,
    backing: name === '' ? undefined : { name, format: undefined },
  };
}

/** The backing file's name, wherever it lies. */
async function readName(file: StorageFile, offset: number, length: number): Promise<string> {
  if (length > maxBackingNameBytes) {
    throw invalidImage(file.filename, 'Backing file name too long');
  }
  if (offset + length > (await file.size())) {
    throw invalidImage(file.filename, 'Backing file name lies beyond the file');
  }
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return decodeText(bytes);
}
