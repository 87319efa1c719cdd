/** What is run while a device fails: the crash tester's workloads, and some of this tester's own. */
import type { GuestDisk, Workload } from '../crash/recording.js';
import { fill, mix, range, workloads as crashWorkloads } from '../crash/workloads.js';

/** A workload, and how its image is opened. */
export interface FaultedWorkload extends Workload {
  readonly run: (disk: GuestDisk) => Promise<void>;
  /** Budget of the metadata cache in bytes; the smallest by default. */
  readonly cacheBytes?: number;
}

const kib = 2;

/** Whether a workload is a guest's, and not the repair of an image. */
function isGuest(workload: Workload): workload is FaultedWorkload {
  return workload.run !== undefined;
}

/** Every workload of a guest. */
export const guestWorkloads: readonly FaultedWorkload[] = [
  ...crashWorkloads.filter(isGuest),
  {
    name: 'reads through a cache that evicts',
    image: { clusterSize: 512 },
    sectors: 29 * 1024 * kib,
    queues: 2,
    // Tables that all compete for the eight slots of one set.
    before: (disk) => fill(disk, range(14, 4096)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 20,
        clusters: range(14, 4096),
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
  {
    name: 'new L2 tables, many side by side',
    image: { clusterSize: 512 },
    sectors: 2048 * kib,
    queues: 2,
    run: async (disk) => {
      await Promise.all(range(24).map((index) => disk.write(index * 128 + 3, 70, index % 2)));
      await disk.flush();
      await Promise.all(range(24).map((index) => disk.zero(index * 128, 64, index % 3 === 0, 0)));
    },
  },
  {
    name: 'one user, one request at a time',
    image: { clusterSize: 4096 },
    sectors: 256 * kib,
    run: async (disk) => {
      await disk.write(0, 8);
      await disk.write(4, 30);
      await disk.flush();
      await disk.read(0, 64);
      await disk.zero(8, 8, false);
      await disk.zero(16, 8, true);
      await disk.compress(24);
      await disk.flush();
      await disk.discard(0, 8);
      await disk.flush();
      await disk.write(48, 9);
      await disk.read(0, 64);
      await disk.compress(24);
    },
  },
];
