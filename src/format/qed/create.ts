/** Making a new QED image: a header, and an L1 table of nothing. */
import { bytesOfName } from '../../byte-names.js';
import { CowherdError } from '../../errors.js';
import { maxQedBackingNameBytes } from '../../limits.js';
import { sizeInBytes } from '../../size.js';
import type { CreateOptions } from '../create-options.js';
import type { ImageCreation } from '../driver.js';
import { encodeQedHeader, qedBounds, qedEntryBytes } from './header.js';

const defaultClusterSize = 64 * 1024;
const defaultTableClusters = 4;

/** The creation. */
export const qedCreation: ImageCreation = {
  check(options, size) {
    decide(options, size);
  },
  async create({ file, size, options }) {
    const { clusterSize, tableClusters, name } = decide(options, size);
    await file.truncate((1 + tableClusters) * clusterSize);
    await file.write(new Uint8Array(tableClusters * clusterSize), clusterSize);
    const isRaw = options.backingFormat === 'raw';
    const header = encodeQedHeader({ size, clusterSize, tableClusters, name, isRaw });
    // Last, so that what is cut off is no image at all.
    await file.flush();
    await file.write(header, 0);
    await file.flush();
  },
};

function decide(
  options: CreateOptions,
  size: number,
): {
  readonly clusterSize: number;
  readonly tableClusters: number;
  readonly name: Uint8Array | undefined;
} {
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  };
  const clusterSize = sizeInBytes(options.clusterSize ?? defaultClusterSize, 'cluster size');
  const { minClusterSize, maxClusterSize, maxTableSize } = qedBounds;
  const isPower = (value: number): boolean => Number.isInteger(Math.log2(value));
  if (!isPower(clusterSize) || clusterSize < minClusterSize || clusterSize > maxClusterSize) {
    refuse(
      `QED cluster size must be within range [${minClusterSize}, ${maxClusterSize}] and power of 2`,
    );
  }
  const tableClusters = sizeInBytes(options.tableSize ?? defaultTableClusters, 'table size');
  // QEMU does not open images whose tables take one cluster.
  if (!isPower(tableClusters) || tableClusters < 2 || tableClusters > maxTableSize) {
    refuse(`QED table size must be within range [2, ${maxTableSize}] and power of 2`);
  }
  const entries = (tableClusters * clusterSize) / qedEntryBytes;
  if (size > entries * entries * clusterSize) {
    refuse(
      'QED image size must be a non-zero multiple of cluster size and less than the tables map',
    );
  }
  const name = options.backingFile === undefined ? undefined : bytesOfName(options.backingFile);
  if (name !== undefined && name.length > maxQedBackingNameBytes) {
    refuse('Backing file name too long');
  }
  return { clusterSize, tableClusters, name };
}
