/**
 * How large a new image would be: what its tables take when every cluster is written, and its data. Fewer
 * data need fewer tables, which is not counted, as QEMU has it.
 */
import { CowherdError } from '../../../errors.js';
import { maxL1TableBytes } from '../../../limits.js';
import type { MeasuredContent, Measurement } from '../../driver.js';
import { decideLuksHeader, luksAreaBytes } from '../../encryption/new-header.js';
import { bitmapClusters, bitmapEntryBytes } from '../contents/bitmaps.js';
import { Geometry } from '../layout/geometry.js';
import type { Qcow2CreateOptions } from './create.js';

/** @throws ERR_COWHERD_INVALID_ARGUMENT for a disk that is too large for the options */
export async function measureQcow2(
  options: Qcow2CreateOptions,
  content: MeasuredContent | undefined,
): Promise<Measurement> {
  const geometry = new Geometry(options);
  if (geometry.l1Entries(options.size) * 8 > maxL1TableBytes) {
    const message = 'The image size is too large (try using a larger cluster size)';
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  }
  const { clusterSize } = geometry;
  const size = geometry.clusters(options.size) * clusterSize;
  const { encrypt } = options;
  const luks =
    encrypt?.format === 'luks' ? geometry.clusters(luksAreaBytes(decideLuksHeader(encrypt))) : 0;
  const fullyAllocated = metadataBytes(geometry, size) + size + luks * clusterSize;
  const data = await dataBytes(options, size, clusterSize, content);
  const bitmaps = content?.bitmaps;
  return {
    required: fullyAllocated - size + data,
    fullyAllocated,
    ...(bitmaps !== undefined &&
      options.version >= 3 && { bitmaps: bitmapBytes(bitmaps, options.size, clusterSize) }),
  };
}

/** Bytes of header, L1 and L2 tables, and of refcounts for them and the data. */
function metadataBytes(geometry: Geometry, size: number): number {
  const { clusterSize, l2EntrySize } = geometry;
  const l2Tables = Math.ceil(((size / clusterSize) * l2EntrySize) / clusterSize);
  const l1Clusters = geometry.clusters(l2Tables * 8);
  const counted = 1 + l2Tables + l1Clusters + size / clusterSize;
  return (1 + l2Tables + l1Clusters + refcountClusters(geometry, counted)) * clusterSize;
}

/** Clusters of the table and the blocks that count so many clusters, and themselves. */
function refcountClusters(geometry: Geometry, clusters: number): number {
  let needed = 0;
  for (;;) {
    const blocks = Math.ceil((clusters + needed) / geometry.refcountsPerBlock);
    const table = geometry.clusters(blocks * 8);
    if (blocks + table === needed) return needed;
    needed = blocks + table;
  }
}

async function dataBytes(
  { preallocation, backingFile }: Qcow2CreateOptions,
  size: number,
  clusterSize: number,
  content: MeasuredContent | undefined,
): Promise<number> {
  if (preallocation === 'full' || preallocation === 'falloc') return size;
  if (content === undefined) return 0;
  // How much of the source the backing file has is not known.
  if (backingFile !== undefined) return size;
  let bytes = 0;
  /** Up to where clusters are counted. */
  let counted = 0;
  for await (const { start, length } of content.data()) {
    const end = start + length;
    if (end <= counted) continue;
    const from = Math.max(start, counted);
    counted = Math.ceil(end / clusterSize) * clusterSize;
    bytes += counted - (from - (from % clusterSize));
  }
  return bytes;
}

function bitmapBytes(
  bitmaps: NonNullable<MeasuredContent['bitmaps']>,
  size: number,
  clusterSize: number,
): number {
  const roundUp = (bytes: number): number => Math.ceil(bytes / clusterSize) * clusterSize;
  let bytes = 0;
  let directory = 0;
  for (const { name, granularity } of bitmaps) {
    const clusters = bitmapClusters(size, Math.log2(granularity), clusterSize);
    bytes += clusters * clusterSize + roundUp(clusters * 8);
    directory += bitmapEntryBytes(name);
  }
  return bytes + roundUp(directory);
}
