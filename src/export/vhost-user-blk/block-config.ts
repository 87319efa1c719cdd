/** What a block device tells of itself (virtio 1.2, section 5.2.4), as drivers read it. */
import type { Image } from '../../image/api/image.js';
import {
  Feature,
  bitsOf,
  mostRangeSectors,
  mostRanges,
  mostSegments,
  sectorBytes,
} from './protocol.js';

/** Bytes of all fields, the last ones of which, of secure erase, are zero. */
export const configBytes = 72;
/** Where it says whether writes stay in a cache until they are flushed. */
export const writeCacheAt = 32;

/** Bytes of a block that a driver should think in: the least that every guest takes. */
const blockBytes = 512;

/** A device, as what it tells depends on it. */
export interface BlockDeviceFacts {
  readonly image: Image;
  readonly readOnly: boolean;
  /** Virtqueues at most. */
  readonly queues: number;
  /** Whether drivers may have packed queues. */
  readonly isPacked: boolean;
}

/** Features that the device has, of those of block devices and of rings. */
export function featuresOf({ readOnly, isPacked }: BlockDeviceFacts): bigint {
  const { SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES } = Feature;
  const { INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, RING_PACKED, RO } = Feature;
  return bitsOf([
    ...[SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES],
    ...[INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1],
    ...(isPacked ? [RING_PACKED] : []),
    ...(readOnly ? [RO] : []),
  ]);
}

/** What the device tells of itself now. */
export function configOf({ image, queues }: BlockDeviceFacts, hasWriteCache: boolean): Buffer {
  const config = Buffer.alloc(configBytes);
  const clusterBlocks = Math.max(1, (image.clusterSize ?? blockBytes) / blockBytes);
  config.writeBigUInt64LE(BigInt(Math.floor(image.size / sectorBytes)), 0);
  // What would be the largest segment is left out: some drivers cannot deal with any.
  config.writeUInt32LE(mostSegments, 12);
  config.writeUInt32LE(blockBytes, 20);
  // Best written by whole pages, which are 2^3 blocks, and read by whole clusters.
  config.writeUInt8(3, 24);
  config.writeUInt16LE(8, 26);
  config.writeUInt32LE(clusterBlocks, 28);
  config.writeUInt8(hasWriteCache ? 1 : 0, writeCacheAt);
  config.writeUInt16LE(queues, 34);
  config.writeUInt32LE(mostRangeSectors, 36);
  config.writeUInt32LE(mostRanges, 40);
  config.writeUInt32LE(clusterBlocks, 44);
  config.writeUInt32LE(mostRangeSectors, 48);
  config.writeUInt32LE(mostRanges, 52);
  config.writeUInt8(1, 56);
  return config;
}
