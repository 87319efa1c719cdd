/** Reading what describes a VHDX image: its headers, its log, its regions, the metadata and the table. */
import { maxVhdxLogBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import {
  type FileRange,
  type VhdxHeader,
  decodeVhdxHeaders,
  decodeVhdxRegions,
  hasSignature,
  vhdxHeaderBytes,
  vhdxHeaderOffsets,
  vhdxRegionTableBytes,
  vhdxRegionTableOffsets,
} from './header.js';
import { findActiveSequence } from './log.js';
import { type GrowingVhdxLayout, type VhdxLayout, blocksOfChunk } from './mapping.js';
import { readVhdxMetadata } from './metadata.js';
import { ReplayedFile } from './replayed-file.js';
import { type ReplayedRanges, replay } from './replayed-ranges.js';
import { checkVhdxTable } from './table-check.js';

/**
 * Reads the layout.
 *
 * @param onDamage told of each block that cannot be where the table has it; by default the image is refused
 * @param onBlock as that of `checkVhdxTable`
 */
export async function readVhdxLayout(
  file: StorageFile,
  onDamage?: (why: string) => void,
  onBlock?: (entry: number, range: FileRange) => void,
): Promise<GrowingVhdxLayout> {
  const { filename } = file;
  if (!hasSignature(await read(file, 0, 512), 'vhdxfile')) {
    throw invalidImage(filename, 'Image not in VHDX format');
  }
  const header = decodeVhdxHeaders(
    await readEach(file, vhdxHeaderOffsets, vhdxHeaderBytes),
    filename,
  );
  const log = await readLog(file, header);
  const replayed = log?.ranges;
  const shown = replayed === undefined ? file : new ReplayedFile(file, replayed);
  const regions = decodeVhdxRegions(
    await readEach(shown, vhdxRegionTableOffsets, vhdxRegionTableBytes),
    header.log,
    filename,
  );
  const { parent, ...disk } = await readVhdxMetadata(shown, regions.metadata);
  const isDifferencing = parent !== undefined;
  const layout: VhdxLayout = {
    ...disk,
    clusterSize: disk.blockSize,
    tableOffset: regions.allocationTable.offset,
    chunkBlocks: blocksOfChunk(disk.sectorSize, disk.blockSize),
    isDifferencing,
    replayed,
    backing: parent === undefined ? undefined : { ...parent, format: 'vhdx' },
    identity: header.dataWriteId,
  };
  const fileLength = Math.max(await file.size(), log?.lastLength ?? 0);
  const structures = { ...regions, log: header.log };
  const refuse = (why: string): never => {
    throw invalidImage(filename, why);
  };
  const surroundings = { structures, fileLength };
  const end = await checkVhdxTable(shown, layout, surroundings, onDamage ?? refuse, onBlock);
  return { ...layout, header, end, loggedLength: log?.lastLength };
}

/** What the log has that is not in its place yet, and how long the file is with that. */
async function readLog(
  file: StorageFile,
  { log, logId }: VhdxHeader,
): Promise<{ ranges: ReplayedRanges; lastLength: number } | undefined> {
  if (logId === undefined) return undefined;
  const { filename } = file;
  if (log.length > maxVhdxLogBytes) {
    throw unsupportedImage(filename, `VHDX log of ${log.length} bytes is too large to be replayed`);
  }
  const sequence = findActiveSequence(await read(file, log.offset, log.length), logId, filename);
  if (sequence === undefined) return undefined;
  const { writes, flushedLength, lastLength } = sequence;
  if ((await file.size()) < flushedLength) {
    throw invalidImage(
      filename,
      'The file is shorter than its VHDX log says: it has been truncated',
    );
  }
  const ends = writes.map(({ offset, length }) => offset + length);
  const writtenLength = ends.reduce((longest, end) => Math.max(longest, end), lastLength);
  return { ranges: replay(writes), lastLength: writtenLength };
}

async function readEach(
  file: StorageFile,
  offsets: readonly number[],
  length: number,
): Promise<Uint8Array[]> {
  return await Promise.all(offsets.map((offset) => read(file, offset, length)));
}

async function read(file: StorageFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return bytes;
}
