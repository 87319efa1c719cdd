/** Looks through a VHDX image's block allocation table, before anything is read by it. */
import type { StorageFile } from '../../storage/storage.js';
import { invalidImage } from '../failures.js';
import { tablePieces } from '../mapped/table-pieces.js';
import { type FileRange, overlapMessage, vhdxAlignment } from './header.js';
import {
  BlockState,
  type VhdxLayout,
  hostOffsetOf,
  payloadEntry,
  stateOf,
  vhdxEntryBytes,
} from './mapping.js';

const bitmapBytes = 1024 * 1024;
const { fullyPresent, partiallyPresent } = BlockState;

/** Where the structures lie that no block may overlap. */
export interface VhdxStructures {
  readonly allocationTable: FileRange;
  readonly metadata: FileRange;
  readonly log: FileRange;
}

/**
 * Finds blocks of the table that lie beyond the end of the file, or over other structures.
 *
 * @param file as it is once the log has been replayed
 * @param surroundings where the structures lie that no block may overlap, and how long the file is, in bytes
 * @param onDamage told why a block cannot be where it is said to be
 * @param onBlock told of each other block where it lies
 * @returns host offset in bytes behind which nothing lies, no block's end either
 * @throws ERR_COWHERD_INVALID_IMAGE for a table that is too short
 */
export async function checkVhdxTable(
  file: StorageFile,
  layout: VhdxLayout,
  surroundings: { readonly structures: VhdxStructures; readonly fileLength: number },
  onDamage: (why: string) => void,
  onBlock: (entry: number, range: FileRange) => void = () => undefined,
): Promise<number> {
  const { filename } = file;
  const { structures, fileLength } = surroundings;
  let end = fileLength;
  const { size, blockSize, chunkBlocks, tableOffset, isDifferencing } = layout;
  const blocks = Math.ceil(size / blockSize);
  // Of an image without a parent the bitmaps are not looked at: QEMU has written nonsense there.
  const used = isDifferencing
    ? Math.ceil(blocks / chunkBlocks) * (chunkBlocks + 1)
    : payloadEntry(Math.max(blocks - 1, 0), chunkBlocks) + 1;
  const count = blocks === 0 ? 0 : used;
  const { allocationTable } = structures;
  if (count * vhdxEntryBytes > allocationTable.length) {
    throw invalidImage(filename, 'The VHDX block allocation table is too small for the disk');
  }
  if (tableOffset + count * vhdxEntryBytes > fileLength) {
    throw invalidImage(filename, 'The VHDX block allocation table lies beyond the end of the file');
  }
  const taken: readonly FileRange[] = [
    { offset: 0, length: vhdxAlignment },
    ...Object.values<FileRange>({ ...structures }).filter(({ length }) => length > 0),
  ];
  // As a rule they lie before all blocks.
  const free = Math.max(...taken.map(({ offset, length }) => offset + length));
  const check = (entry: number, low: number, high: number): void => {
    const state = stateOf(low);
    if (state !== fullyPresent && state !== partiallyPresent) return;
    const isBitmap = entry % (chunkBlocks + 1) === chunkBlocks;
    const block = entry - Math.floor(entry / (chunkBlocks + 1));
    if (isBitmap ? !isDifferencing : block >= blocks) return;
    const offset = hostOffsetOf(low, high);
    // Images of QEMU's may end with a part of a block, as much of it as the disk has.
    const needed = isBitmap ? bitmapBytes : Math.min(blockSize, size - block * blockSize);
    if (offset + needed > fileLength) {
      onDamage(beyondEnd(entry, offset, needed, fileLength));
      return;
    }
    end = Math.max(end, offset + (isBitmap ? bitmapBytes : blockSize));
    const range = { offset, length: isBitmap ? bitmapBytes : blockSize };
    onBlock(entry, range);
    if (offset >= free) return;
    const other = taken.find((each) => overlap(range, each));
    if (other !== undefined) onDamage(overlapMessage(range, other));
  };
  for await (const { at, view } of tablePieces(file, tableOffset, count * vhdxEntryBytes)) {
    for (let within = 0; within < view.byteLength; within += vhdxEntryBytes) {
      const entry = (at + within) / vhdxEntryBytes;
      check(entry, view.getUint32(within, true), view.getUint32(within + 4, true));
    }
  }
  return end;
}

function beyondEnd(entry: number, offset: number, needed: number, fileLength: number): string {
  const [edge, at] = offset >= fileLength ? ['start', offset] : ['end', offset + needed - 1];
  const where = `${edge} offset ${at} points after end of file (${fileLength})`;
  return `VHDX BAT entry ${entry} ${where}. Image has probably been truncated.`;
}

function overlap(one: FileRange, other: FileRange): boolean {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}
