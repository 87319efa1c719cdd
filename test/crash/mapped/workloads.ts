/** The images of a mapping whose power cuts are examined, and what is done to them. */
import type { CreateOptions } from '../../../src/format/create-options.js';
import type { GuestDisk } from '../recording.js';
import {
  type ReadMap,
  readQedMap,
  readVdiMap,
  readVhdMap,
  readVhdxMap,
  readVmdkMap,
} from './maps.js';

/** What runs on an image, and on which. */
export interface MappedWorkload {
  readonly name: string;
  readonly format: string;
  readonly image: CreateOptions;
  /** Size of the disk in sectors. */
  readonly sectors: number;
  /** Bytes that get a place together. */
  readonly blockBytes: number;
  readonly readMap: ReadMap;
  /** Sectors that a raw backing file holds, from the first one on. */
  readonly backedSectors?: number;
  /** Whether what the file grows by is said to read as zeroes; it is by default. */
  readonly zeroInit?: boolean;
}

const mib = 2048;

/** Every workload. */
export const mappedWorkloads: readonly MappedWorkload[] = [
  {
    name: 'VDI',
    format: 'vdi',
    image: {},
    sectors: 7 * mib + 5,
    blockBytes: 1024 * 1024,
    readMap: readVdiMap,
  },
  {
    name: 'VHD, dynamic',
    format: 'vpc',
    image: { forceSize: true },
    sectors: 13 * mib,
    blockBytes: 2 * 1024 * 1024,
    readMap: readVhdMap,
  },
  {
    name: 'VHDX',
    format: 'vhdx',
    image: { blockSize: 1024 * 1024 },
    sectors: 7 * mib,
    blockBytes: 1024 * 1024,
    readMap: readVhdxMap,
  },
  {
    name: 'VMDK, sparse',
    format: 'vmdk',
    image: {},
    sectors: 8 * mib,
    blockBytes: 64 * 1024,
    readMap: readVmdkMap,
  },
  {
    name: 'QED',
    format: 'qed',
    image: { clusterSize: 4096, tableSize: 2 },
    sectors: 6 * mib,
    blockBytes: 4096,
    readMap: readQedMap,
  },
  {
    name: 'QED above a backing file',
    format: 'qed',
    image: { clusterSize: 4096, tableSize: 2 },
    sectors: 6 * mib,
    blockBytes: 4096,
    readMap: readQedMap,
    backedSectors: 5 * mib + 3,
  },
  {
    name: 'QED in a file not known to grow by zeroes',
    format: 'qed',
    image: { clusterSize: 4096, tableSize: 2 },
    sectors: 6 * mib,
    blockBytes: 4096,
    readMap: readQedMap,
    zeroInit: false,
  },
];

/** Users, each with a queue of its own, and requests of each. */
const lanes = 4;
const steps = 12;
/** Blocks that requests begin in: neighbours, and some further on. */
const nearBlocks = 5;

/** Does random requests of a few sectors, at the edges of blocks as a rule, by several users at once. */
export async function useDisk(disk: GuestDisk): Promise<void> {
  const { random, sectors, sectorsPerCluster: perBlock } = disk;
  const blocks = Math.ceil(sectors / perBlock);
  const spots = [0, 1, Math.floor(perBlock / 2), perBlock - 2, perBlock - 1];
  const lane = async (queue: number): Promise<void> => {
    for (let step = 0; step < steps; step++) {
      const block = random.chance(0.8) ? random.below(nearBlocks) : random.below(blocks);
      const sector = Math.min(block * perBlock + random.pick(spots), sectors - 1);
      const count = Math.min(1 + random.below(5), sectors - sector);
      const kind = random.below(10);
      if (kind < 6) await disk.write(sector, count, queue);
      else if (kind < 7) await disk.zero(sector, count, random.chance(0.5), queue);
      else if (kind < 8) await disk.read(sector, count, queue);
      else await disk.flush(queue);
    }
  };
  await Promise.all(Array.from({ length: lanes }, (_, index) => lane(index % disk.queues.length)));
}
