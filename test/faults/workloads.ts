/** What is run while a device fails: the crash tester's workloads, and some of this tester's own. */
import { type Workload } from '../crash/recording.js';
import { fill, mix, range, workloads as crashWorkloads } from '../crash/workloads.js';

/** A workload, and how its image is opened. */
export interface FaultedWorkload extends Workload {
  /** Budget of the metadata cache in bytes; the smallest by default. */
  readonly cacheBytes?: number;
}

const kib = 2;

/** Every workload of a guest. */
export const guestWorkloads: readonly FaultedWorkload[] = [
  ...crashWorkloads,
  {
    name: 'reads through a cache that evicts',
    image: { clusterSize: 512 },
    sectors: 48 * 1024 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(1200, 64)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 20,
        clusters: range(1200, 64),
        weights: { read: 8, write: 3, discard: 1, flush: 1 },
      }),
  },
  {
    name: 'reads above a backing file',
    image: { clusterSize: 4096 },
    sectors: 512 * kib,
    backedSectors: 128 * kib + 3,
    queues: 2,
    before: (disk) => fill(disk, range(10, 3)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 16,
        clusters: range(34),
        weights: { read: 8, part: 2, flush: 1 },
      }),
  },
];
