/** Making a new VHDX image: its headers, a table of blocks, and the blocks if they are wanted. */
import { CowherdError } from '../../errors.js';
import { maxVhdxDiskBytes } from '../../limits.js';
import { sizeInBytes } from '../../size.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CreateOptions } from '../create-options.js';
import type { ImageCreation } from '../driver.js';
import { newGuid } from './guid.js';
import {
  encodeVhdxHeader,
  encodeVhdxIdentifier,
  encodeVhdxRegions,
  vhdxAlignment,
  vhdxHeaderOffsets,
  vhdxRegionTableOffsets,
} from './header.js';
import {
  BlockState,
  blocksOfChunk,
  payloadEntry,
  setVhdxEntry,
  vhdxEntryBytes,
} from './mapping.js';
import { encodeVhdxMetadata, maxBlockSize, minBlockSize, newSectorSize } from './metadata.js';

const mebi = 1024 * 1024;
const gibi = 1024 * mebi;
/** Bytes of the table that are written at once. */
const writtenBytes = mebi;

/** How a new image is laid out; in bytes. */
interface NewLayout {
  readonly size: number;
  readonly blockSize: number;
  readonly logSize: number;
  readonly isFixed: boolean;
  readonly tableOffset: number;
  /** Of the entries that are used. */
  readonly tableBytes: number;
  readonly metadataOffset: number;
  /** Where the first block comes. */
  readonly dataOffset: number;
  /** State of the blocks of a dynamic disk. */
  readonly emptyState: number;
}

/** The creation. */
export const vhdxCreation: ImageCreation = {
  check(options, size) {
    decide(options, size);
  },
  async create({ file, size, options, signal }) {
    const layout = decide(options, size);
    const { blockSize, logSize, isFixed, tableOffset, metadataOffset, dataOffset } = layout;
    const blocks = Math.ceil(size / blockSize);
    await file.truncate(dataOffset + (isFixed ? blocks * blockSize : 0));
    if (!file.limits.zeroInit) {
      await file.writeZeroes(0, tableOffset, false);
      if (isFixed) await file.writeZeroes(dataOffset, blocks * blockSize, false);
    }
    const ids = { fileWriteId: newGuid(), dataWriteId: newGuid() };
    const log = { offset: vhdxAlignment, length: logSize };
    for (const [index, offset] of vhdxHeaderOffsets.entries()) {
      const sequenceNumber = BigInt(index);
      await file.write(encodeVhdxHeader({ sequenceNumber, ...ids, log }), offset);
    }
    const regions = encodeVhdxRegions({
      allocationTable: { offset: tableOffset, length: metadataOffset - tableOffset },
      metadata: { offset: metadataOffset, length: dataOffset - metadataOffset },
    });
    for (const offset of vhdxRegionTableOffsets) await file.write(regions, offset);
    await file.write(encodeVhdxMetadata({ size, blockSize, isFixed }), metadataOffset);
    await writeTable(file, layout, signal);
    // Last, so that what is cut off is no image at all.
    await file.flush();
    await file.write(encodeVhdxIdentifier(), 0);
    await file.flush();
  },
};

/**
 *     [ headers ][ log ][ table ][ metadata ][ blocks ]
 *
 * Every block of a fixed disk has its place, and whole, as [MS-VHDX] 2.5.1.1 has it.
 */
function decide(options: CreateOptions, size: number): NewLayout {
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  };
  const { subformat = 'dynamic', blockStateZero = true } = options;
  if (size > maxVhdxDiskBytes) refuse('Image size too large; max of 64TB');
  const wantedLog = sizeInBytes(options.logSize ?? mebi, 'log size');
  const logSize = roundUp(wantedLog, mebi);
  if (logSize === 0) refuse('Log size must be a multiple of 1 MB');
  if (logSize >= 4 * gibi) refuse('Log size must be smaller than 4 GB');
  if (subformat !== 'dynamic' && subformat !== 'fixed') {
    refuse(`Parameter 'subformat' does not accept value '${subformat}'`);
  }
  const wantedBlock = sizeInBytes(options.blockSize ?? 0, 'block size');
  const blockSize =
    wantedBlock === 0
      ? blockSizeFor(size)
      : Math.min(roundUp(wantedBlock, minBlockSize), maxBlockSize);
  if (!Number.isInteger(Math.log2(blockSize))) refuse('Block size must be a power of two');
  const chunkBlocks = blocksOfChunk(newSectorSize, blockSize);
  const blocks = Math.ceil(size / blockSize);
  const entries = blocks === 0 ? 0 : payloadEntry(blocks - 1, chunkBlocks) + 1;
  // QEMU takes the block before the first one of an empty disk for the last, and wants entries up to that.
  const room = blocks === 0 ? Math.floor(0xffffffff / chunkBlocks) : entries;
  const tableOffset = vhdxAlignment + logSize;
  const metadataOffset = tableOffset + roundUp(room * vhdxEntryBytes, vhdxAlignment);
  return {
    size,
    blockSize,
    logSize,
    isFixed: subformat === 'fixed',
    tableOffset,
    tableBytes: entries * vhdxEntryBytes,
    metadataOffset,
    dataOffset: metadataOffset + vhdxAlignment,
    emptyState: blockStateZero ? BlockState.zero : BlockState.notPresent,
  };
}

/** The block size of a disk where none is said: so that its table is not long. */
function blockSizeFor(size: number): number {
  if (size > 32 * 1024 * gibi) return 64 * mebi;
  if (size > 100 * gibi) return 32 * mebi;
  return size > gibi ? 16 * mebi : 8 * mebi;
}

async function writeTable(
  file: StorageFile,
  { blockSize, isFixed, tableOffset, tableBytes, dataOffset, emptyState }: NewLayout,
  signal: AbortSignal | undefined,
): Promise<void> {
  const chunkBlocks = blocksOfChunk(newSectorSize, blockSize);
  let block = 0;
  for (let done = 0; done < tableBytes; done += writtenBytes) {
    signal?.throwIfAborted();
    const bytes = new Uint8Array(Math.min(writtenBytes, tableBytes - done));
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < bytes.length; at += vhdxEntryBytes) {
      const entry = (done + at) / vhdxEntryBytes;
      // Of a bitmap, which there is none of.
      if (entry % (chunkBlocks + 1) === chunkBlocks) continue;
      if (isFixed) setVhdxEntry(view, at, dataOffset + block * blockSize, BlockState.fullyPresent);
      else setVhdxEntry(view, at, 0, emptyState);
      block += 1;
    }
    await file.write(bytes, tableOffset + done);
  }
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
