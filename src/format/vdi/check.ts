/** Checking a VDI image: whether each block of its map lies in the file, and is no other's. */
import type { StorageFile } from '../../storage/storage.js';
import type { CheckOptions, CheckReport } from '../check.js';
import { unrepairedFormat } from '../failures.js';
import { CheckTally } from '../mapped/check-tally.js';
import { tablePieces } from '../mapped/table-pieces.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import { decodeVdiHeader, vdiBlockBytes, vdiHeaderBytes } from './header.js';
import { vdiDiscarded, vdiEntryBytes } from './mapping.js';

const explanations = {
  tooLarge:
    'The entry of a block names a place that the image cannot have: the data of that block is lost.',
  shared:
    'Two blocks of the disk lie at one place: at least one of them reads as what the other holds, and writing to one changes both.',
  beyondEnd:
    'A block lies where the file has ended, as if it had been cut off: the data that should be there is lost and reads as zeroes.',
  shortMap:
    'The map ends where the file has ended: nothing says where the data of the blocks behind it lie.',
  count:
    'The header counts other blocks than the map has; the data reads well, but a program that believes the count may write over it.',
} as const;

/**
 * Checks an image.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for a repair, which QEMU does not have either
 */
export async function checkVdi(file: StorageFile, options: CheckOptions): Promise<CheckReport> {
  const { filename } = file;
  if (options.repair !== undefined) throw unrepairedFormat(filename, 'vdi');
  const bytes = new Uint8Array(vdiHeaderBytes);
  await file.read(bytes, 0);
  const { size, mapOffset, dataOffset, blocks, allocatedBlocks } = decodeVdiHeader(bytes, filename);
  const fileLength = await file.size();
  const tally = new CheckTally(explanations, options.onFinding);
  const used = UsedClusters.of(blocks)!;
  let allocated = 0;
  const check = (block: number, entry: number): void => {
    if (entry >= vdiDiscarded) return;
    if (entry >= blocks) {
      tally.corruption('tooLarge', `ERROR: block index ${block} too large, is ${entry}`);
      return;
    }
    allocated += 1;
    if (!used.take(entry)) {
      tally.corruption('shared', `ERROR: block index ${entry} also used by ${entry}`);
    }
    // The disk may end within its last block.
    const needed = Math.min(vdiBlockBytes, size - block * vdiBlockBytes);
    if (needed > 0 && dataOffset + entry * vdiBlockBytes + needed > fileLength) {
      tally.corruption('beyondEnd', `ERROR: block index ${block} lies beyond the end of the file`);
    }
  };
  const there = Math.floor((fileLength - mapOffset) / vdiEntryBytes);
  if (there < blocks) {
    const why = `block map of ${blocks} entries ends beyond the end of the file`;
    tally.corruption('shortMap', `ERROR: ${why}`);
  }
  const totalBytes = Math.min(there, blocks) * vdiEntryBytes;
  for await (const { at, view } of tablePieces(file, mapOffset, totalBytes)) {
    options.signal?.throwIfAborted();
    for (let within = 0; within < view.byteLength; within += vdiEntryBytes) {
      check((at + within) / vdiEntryBytes, view.getUint32(within, true));
    }
    options.onProgress?.({ doneBytes: at + view.byteLength, totalBytes });
  }
  if (allocated !== allocatedBlocks) {
    const counts = `is ${allocated}, should be ${allocatedBlocks}`;
    tally.corruption('count', `ERROR: allocated blocks mismatch, ${counts}`);
  }
  return tally.report(filename, 'vdi');
}
