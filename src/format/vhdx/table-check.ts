/** Looks through a VHDX image's block allocation table, before anything is read by it. */
import type { StorageFile } from '../../storage/storage.js';
import { invalidImage } from '../failures.js';
import { type FileRange, overlapMessage, vhdxAlignment } from './header.js';
import {
  BlockState,
  type VhdxLayout,
  hostOffsetOf,
  payloadEntry,
  stateOf,
  vhdxEntryBytes,
} from './mapping.js';

/** Bytes of the table that are looked at at a time. */
const scannedBytes = 1024 * 1024;
const bitmapBytes = 1024 * 1024;
const { fullyPresent, partiallyPresent } = BlockState;

/** Where the structures lie that no block may overlap. */
export interface VhdxStructures {
  readonly allocationTable: FileRange;
  readonly metadata: FileRange;
  readonly log: FileRange;
}

/**
 * Refuses a table whose blocks lie beyond the end of the file, or over other structures.
 *
 * @param file as it is once the log has been replayed
 * @param fileLength of it, in bytes
 * @returns host offset in bytes behind which nothing lies, no block's end either
 * @throws ERR_COWHERD_INVALID_IMAGE
 */
export async function checkVhdxTable(
  file: StorageFile,
  layout: VhdxLayout,
  structures: VhdxStructures,
  fileLength: number,
): Promise<number> {
  const { filename } = file;
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
    if (offset + needed > fileLength) throw beyondEnd(entry, offset, needed, fileLength, filename);
    end = Math.max(end, offset + (isBitmap ? bitmapBytes : blockSize));
    if (offset >= free) return;
    const range = { offset, length: isBitmap ? bitmapBytes : blockSize };
    const other = taken.find((each) => overlap(range, each));
    if (other !== undefined) throw invalidImage(filename, overlapMessage(range, other));
  };
  await eachEntry(file, tableOffset, count, check);
  return end;
}

async function eachEntry(
  file: StorageFile,
  tableOffset: number,
  count: number,
  visit: (entry: number, low: number, high: number) => void,
): Promise<void> {
  const tableBytes = count * vhdxEntryBytes;
  const bytes = new Uint8Array(Math.min(tableBytes, scannedBytes));
  for (let done = 0; done < tableBytes; done += bytes.length) {
    const part = bytes.subarray(0, tableBytes - done);
    await file.read(part, tableOffset + done);
    const view = new DataView(part.buffer, 0, part.length);
    for (let at = 0; at < part.length; at += vhdxEntryBytes) {
      const entry = (done + at) / vhdxEntryBytes;
      visit(entry, view.getUint32(at, true), view.getUint32(at + 4, true));
    }
  }
}

function beyondEnd(
  entry: number,
  offset: number,
  needed: number,
  fileLength: number,
  filename: string,
): Error {
  const [edge, at] = offset >= fileLength ? ['start', offset] : ['end', offset + needed - 1];
  const where = `${edge} offset ${at} points after end of file (${fileLength})`;
  const why = `VHDX BAT entry ${entry} ${where}. Image has probably been truncated.`;
  return invalidImage(filename, why);
}

function overlap(one: FileRange, other: FileRange): boolean {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}
