/**
 * The header of a compressed loop device (cloop, version 2.0): a script that mounts it, then numbers,
 * big-endian. A table of offsets follows: where each block begins, and where the last one ends.
 */
import { maxChunkBytes, maxCloopOffsets } from '../../limits.js';
import { invalidImage } from '../failures.js';
import type { MappedLayout } from '../mapped/mapping.js';

/** Bytes of the header. */
export const headerBytes = 136;
/** Bytes of an entry of the table. */
export const entryBytes = 8;

const begin = Buffer.from('#!/bin/sh\n#V2.0 Format\n', 'latin1');
const mib = 1024 * 1024;
const sectorBytes = 512;
/** Most blocks whose table's bytes are a number of 32 bits. */
const mostBlocks = 0x1fffffff;

/** What a header tells. */
export interface CloopLayout extends MappedLayout {
  /** Bytes of the disk in a block. */
  readonly blockBytes: number;
}

/**
 * Reads and checks a header.
 *
 * @param bytes the first `headerBytes` of the file
 * @param fileLength bytes of the file
 */
export function decodeHeader(bytes: Uint8Array, filename: string, fileLength: number): CloopLayout {
  if (!begin.every((byte, index) => bytes[index] === byte)) {
    throw invalidImage(filename, 'Image not in cloop format');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blockBytes = view.getUint32(128);
  if (blockBytes % sectorBytes !== 0) {
    throw invalidImage(filename, `block_size ${blockBytes} must be a multiple of 512`);
  }
  if (blockBytes === 0) throw invalidImage(filename, 'block_size cannot be zero');
  if (blockBytes > maxChunkBytes) {
    const most = `${maxChunkBytes / mib} MB or less`;
    throw invalidImage(filename, `block_size ${blockBytes} must be ${most}`);
  }
  const blocks = view.getUint32(132);
  if (blocks > mostBlocks) {
    throw invalidImage(filename, `n_blocks ${blocks} must be ${mostBlocks} or less`);
  }
  if (blocks + 1 > maxCloopOffsets) {
    const why = 'image requires too many offsets, try increasing block size';
    throw invalidImage(filename, why);
  }
  if (headerBytes + (blocks + 1) * entryBytes > fileLength) {
    throw invalidImage(filename, 'the table of offsets ends beyond the file');
  }
  return { size: blocks * blockBytes, clusterSize: undefined, blockBytes };
}
