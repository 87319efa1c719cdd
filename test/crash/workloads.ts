/** The workloads whose power cuts are examined. */
import { lostStructures, unwrittenCounts, wrongCounts } from './damage.js';
import {
  type FragmentedSpace,
  type FragmentedSpaceOptions,
  fragmentedSpace,
  mixedWeights,
} from '../support/fragmented-space.js';
import type { AmendOptions } from '../../src/image/api/options.js';
import type { GuestDisk, SnapshotAction, Workload } from './recording.js';

/** Requests that a mix draws from. */
export type RequestName =
  'write' | 'part' | 'read' | 'zero' | 'unmap' | 'discard' | 'compress' | 'flush';

/** Random requests of several users, spread over the queues. */
export interface Mix {
  readonly lanes: number;
  /** Requests of each lane. */
  readonly steps: number;
  /** Guest clusters that requests begin in. */
  readonly clusters: readonly number[];
  readonly weights: Readonly<Partial<Record<RequestName, number>>>;
}

/** Runs them. */
export async function mix(
  disk: GuestDisk,
  { lanes, steps, clusters, weights }: Mix,
): Promise<void> {
  const { random, sectorsPerCluster: perCluster, queues, sectors } = disk;
  const total = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
  const choose = (): string => {
    let left = random.below(total);
    for (const [kind, weight] of Object.entries(weights)) {
      if (left < weight) return kind;
      left -= weight;
    }
    return 'flush';
  };
  const lane = async (queue: number): Promise<void> => {
    for (let step = 0; step < steps; step++) {
      const sector = random.pick(clusters) * perCluster;
      const count = Math.min(perCluster * (1 + random.below(3)), sectors - sector);
      const kind = choose();
      if (kind === 'write') await disk.write(sector, count, queue);
      else if (kind === 'part') {
        const within = random.below(perCluster);
        const most = Math.min(perCluster + 2, sectors - sector - within);
        await disk.write(sector + within, 1 + random.below(most), queue);
      } else if (kind === 'read') await disk.read(sector, count, queue);
      else if (kind === 'zero') await disk.zero(sector, count, false, queue);
      else if (kind === 'unmap') await disk.zero(sector, count, true, queue);
      else if (kind === 'discard') await disk.discard(sector, count, queue);
      else if (kind === 'compress') await disk.compress(sector, queue);
      else await disk.flush(queue);
    }
  };
  await Promise.all(Array.from({ length: lanes }, (_, index) => lane(index % queues.length)));
}

/** So many numbers. */
export function range(count: number, step = 1, from = 0): number[] {
  return Array.from({ length: count }, (_, index) => from + index * step);
}

const kib = 2;

/** Fills clusters one after the other. */
export async function fill(disk: GuestDisk, clusters: readonly number[]): Promise<void> {
  const { sectorsPerCluster } = disk;
  for (const cluster of clusters) {
    await disk.write(cluster * sectorsPerCluster, sectorsPerCluster);
  }
}

/** Requests of every kind where free clusters lie apart, one by one. */
function inFragmentedSpace(
  name: string,
  image: Workload['image'],
  options: FragmentedSpaceOptions,
): Workload {
  const space: FragmentedSpace = fragmentedSpace(options);
  return {
    name,
    image: { ...image, clusterSize: options.clusterSize },
    sectors: (space.clusters * options.clusterSize) / 512,
    snapshot: true,
    queues: 2,
    before: (disk) => fill(disk, space.held),
    sinceSnapshot: async (disk) => {
      await fill(disk, space.written);
      for (const cluster of space.given) {
        await disk.zero(cluster * disk.sectorsPerCluster, disk.sectorsPerCluster, true);
      }
    },
    run: (disk) =>
      mix(disk, {
        lanes: 6,
        steps: 8,
        clusters: space.touched,
        weights: { ...mixedWeights, part: 2 },
      }),
  };
}

/** Two queues that come to need a longer refcount table, and requests of such kinds after that. */
function longerTable(weights: Mix['weights']): Omit<Workload, 'name'> {
  return {
    image: { clusterSize: 512, refcountBits: 64 },
    sectors: 3200 * kib,
    queues: 2,
    // The table of one cluster counts 2 MiB, which what the second queue writes passes.
    before: (disk) => disk.write(0, 1550 * kib),
    run: async (disk) => {
      for (const queue of [0, 1]) {
        await disk.write((1600 + 300 * queue) * kib, 250 * kib, queue);
        await disk.flush(queue);
      }
      await mix(disk, { lanes: 4, steps: 8, clusters: range(40, 60, 3900), weights });
    },
  };
}

/** Every workload. */
export const workloads: readonly Workload[] = [
  {
    name: 'allocation',
    image: { clusterSize: 4096 },
    sectors: 1024 * kib,
    queues: 3,
    run: (disk) =>
      mix(disk, {
        lanes: 6,
        steps: 10,
        clusters: range(24),
        weights: { write: 4, part: 3, flush: 2 },
      }),
  },
  {
    name: 'allocation in an image of version 2',
    image: { clusterSize: 4096, compat: '0.10' },
    sectors: 1024 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(12, 2)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 10,
        clusters: range(24),
        weights: { write: 4, part: 3, zero: 1, discard: 1, flush: 2 },
      }),
  },
  {
    name: 'copy-on-write from a backing file',
    image: { clusterSize: 4096 },
    sectors: 512 * kib,
    backedSectors: 128 * kib + 3,
    queues: 2,
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: range(34),
        weights: { part: 6, write: 1, zero: 1, discard: 1, flush: 3 },
      }),
  },
  {
    name: 'copy-on-write of what a snapshot holds',
    image: { clusterSize: 4096 },
    sectors: 2560 * kib,
    snapshot: true,
    queues: 2,
    before: (disk) => fill(disk, [...range(16), ...range(4, 1, 600)]),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: [...range(18), 600, 601, 602],
        weights: { part: 4, write: 3, unmap: 1, discard: 2, flush: 3 },
      }),
  },
  {
    name: 'discard and reuse',
    // Large clusters make a queue's first reservation small, so that it soon needs another.
    image: { clusterSize: 32768 },
    sectors: 640 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(12)),
    run: (disk) =>
      mix(disk, {
        lanes: 3,
        steps: 20,
        clusters: range(14),
        weights: { write: 4, part: 2, discard: 5, unmap: 1, flush: 4 },
      }),
  },
  {
    name: 'write-zeroes',
    image: { clusterSize: 4096 },
    sectors: 512 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(10, 2)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: range(24),
        weights: { zero: 4, unmap: 3, write: 2, part: 2, flush: 3 },
      }),
  },
  {
    name: 'new refcount blocks',
    image: { clusterSize: 512, refcountBits: 64 },
    sectors: 1024 * kib,
    queues: 2,
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 8,
        clusters: range(32, 32),
        weights: { write: 5, part: 1, flush: 2 },
      }),
  },
  {
    name: 'a disk that grows and shrinks',
    image: { clusterSize: 512 },
    sectors: 64 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(40, 2)),
    run: async (disk) => {
      const { sectors } = disk;
      const resize = async (): Promise<void> => {
        for (const factor of [2, 16, 200, 3, 17, 1]) await disk.resize(sectors * factor);
      };
      const weights = { write: 5, part: 2, unmap: 1, discard: 1, flush: 2 };
      await Promise.all([
        resize(),
        mix(disk, { lanes: 3, steps: 8, clusters: range(100), weights }),
      ]);
    },
  },
  ...[{ clusterSize: 512 }, { clusterSize: 16384, extendedL2: true }].map((layout): Workload => ({
    name: `snapshots taken, gone back to and given up, clusters of ${layout.clusterSize} bytes`,
    image: layout,
    sectors: Math.max(256 * kib, layout.clusterSize / 8),
    queues: 2,
    hasExclusiveChanges: true,
    before: (disk) => fill(disk, range(20, 3)),
    run: async (disk) => {
      const weights = { write: 5, part: 2, unmap: 1, discard: 1, compress: 1, flush: 1 };
      const change = (): Promise<void> =>
        mix(disk, { lanes: 2, steps: 4, clusters: range(60), weights });
      for (const step of [
        'create one',
        'create two',
        'apply one',
        'delete one',
        'apply two',
        'create three',
        'delete two',
      ]) {
        const [action, name] = step.split(' ') as [SnapshotAction, string];
        await disk.snapshot(action, name);
        await change();
      }
    },
  })),
  ...[
    { clusterSize: 512 },
    { clusterSize: 4096, compat: '0.10' as const },
    { clusterSize: 4096, lazyRefcounts: true },
  ].map((layout): Workload => ({
    name: `another width of counts and another version, from ${JSON.stringify(layout)}`,
    image: layout,
    sectors: 256 * kib,
    backedSectors: 40 * kib,
    queues: 2,
    hasExclusiveChanges: true,
    before: (disk) => fill(disk, range(20, 3)),
    run: async (disk) => {
      const weights = { write: 5, part: 2, zero: 2, unmap: 2, discard: 1, compress: 1, flush: 1 };
      const steps: readonly AmendOptions[] = [
        { compat: '1.1', refcountBits: 64 },
        { compat: '1.1', refcountBits: 8 },
        { refcountBits: 16 },
        { compat: '0.10', refcountBits: 16 },
        { compat: '1.1', lazyRefcounts: true },
        { compat: '1.1', refcountBits: 32, lazyRefcounts: false },
      ];
      for (const step of steps) {
        await Promise.all([
          disk.amend(step),
          mix(disk, { lanes: 2, steps: 4, clusters: range(60), weights }),
        ]);
      }
    },
  })),
  {
    name: 'a bitmap that records, beside others that change',
    image: { clusterSize: 512 },
    sectors: 128 * kib,
    queues: 2,
    hasBitmap: true,
    hasChangingBitmaps: true,
    before: async (disk) => {
      await fill(disk, range(20, 5));
      await disk.bitmap('add', 'since');
    },
    run: async (disk) => {
      const { sectors } = disk;
      const change = async (): Promise<void> => {
        await disk.bitmap('add', 'other');
        await disk.bitmap('merge', 'other');
        await disk.bitmap('disable', 'other');
        await disk.bitmap('clear', 'other');
        await disk.resize(sectors * 40);
        await disk.bitmap('enable', 'other');
        await disk.resize(sectors);
        await disk.bitmap('remove', 'other');
      };
      const weights = { write: 5, part: 2, zero: 1, unmap: 1, discard: 1, compress: 1, flush: 2 };
      await Promise.all([
        change(),
        mix(disk, { lanes: 3, steps: 8, clusters: range(60), weights }),
      ]);
    },
  },
  {
    name: 'bitmaps added and removed',
    hasChangingBitmaps: true,
    image: { clusterSize: 4096 },
    sectors: 256 * kib,
    queues: 2,
    run: async (disk) => {
      const weights = { write: 4, part: 2, discard: 1, flush: 2 };
      const write = (): Promise<void> =>
        mix(disk, { lanes: 2, steps: 3, clusters: range(24), weights });
      for (const name of ['one', 'two']) {
        await disk.bitmap('add', name);
        await write();
      }
      for (const name of ['one', 'two']) await disk.bitmap('remove', name);
      await write();
      await disk.bitmap('add', 'three');
    },
  },
  {
    name: 'a longer refcount table',
    ...longerTable({ write: 5, part: 1, flush: 2 }),
  },
  {
    name: 'a longer refcount table, and nothing reserved ahead',
    ...longerTable({ write: 5, part: 1, discard: 2, flush: 2 }),
    reserveAhead: false,
  },
  {
    name: 'many L2 tables',
    image: { clusterSize: 512 },
    sectors: 8192 * kib,
    queues: 2,
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: range(250, 64),
        weights: { write: 5, part: 1, discard: 1, flush: 2 },
      }),
  },
  {
    name: 'narrow counts',
    image: { clusterSize: 512, refcountBits: 1 },
    sectors: 256 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(60)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 14,
        clusters: range(80),
        weights: { write: 4, discard: 3, unmap: 1, flush: 3 },
      }),
  },
  {
    name: 'compressed clusters',
    image: { clusterSize: 4096 },
    sectors: 256 * kib,
    queues: 2,
    before: async (disk) => {
      for (let cluster = 0; cluster < 12; cluster++) await disk.compress(cluster * 8);
    },
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 10,
        clusters: range(24),
        weights: { compress: 5, write: 2, part: 3, discard: 2, flush: 3 },
      }),
  },
  {
    name: 'lazy refcounts',
    image: { clusterSize: 4096, lazyRefcounts: true },
    sectors: 512 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(10)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 10,
        clusters: range(24),
        weights: { write: 4, part: 2, discard: 2, flush: 3 },
      }),
  },
  {
    name: 'an external data file',
    image: { clusterSize: 4096 },
    sectors: 512 * kib,
    dataFile: true,
    queues: 2,
    before: (disk) => fill(disk, range(10)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: range(24),
        weights: { write: 4, part: 2, zero: 1, discard: 2, flush: 3 },
      }),
  },
  {
    name: 'a raw external data file',
    image: { clusterSize: 4096, dataFileRaw: true },
    sectors: 256 * kib,
    dataFile: true,
    queues: 2,
    before: (disk) => fill(disk, range(10)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: range(24),
        weights: { write: 4, part: 2, zero: 2, discard: 2, flush: 3 },
      }),
  },
  {
    name: 'a file not known to grow by zeroes',
    image: { clusterSize: 4096 },
    sectors: 4096 * kib,
    zeroInit: false,
    queues: 2,
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 10,
        clusters: [...range(16), 520, 521, 1020],
        weights: { write: 4, part: 3, discard: 1, flush: 3 },
      }),
  },
  {
    name: 'subclusters',
    image: { clusterSize: 16384, extendedL2: true },
    sectors: 1024 * kib,
    backedSectors: 200 * kib,
    queues: 2,
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 12,
        clusters: range(16),
        weights: { part: 5, write: 1, zero: 1, unmap: 1, discard: 1, flush: 3 },
      }),
  },
  {
    name: 'clusters of 64 KiB',
    image: {},
    sectors: 1024 * kib,
    queues: 2,
    before: (disk) => fill(disk, range(4)),
    run: (disk) =>
      mix(disk, {
        lanes: 4,
        steps: 8,
        clusters: range(12),
        weights: { part: 5, write: 1, discard: 1, flush: 3 },
      }),
  },
  inFragmentedSpace(
    'fragmented free space',
    {},
    { clusterSize: 1024, filled: 96, apart: 3, tables: 8 },
  ),
  inFragmentedSpace(
    'fragmented free space, new refcount blocks',
    { refcountBits: 64 },
    { clusterSize: 512, filled: 160, apart: 6, tables: 24 },
  ),
  {
    name: 'repair of reference counts',
    image: { clusterSize: 1024 },
    sectors: 1024 * kib,
    snapshot: true,
    before: (disk) => fill(disk, range(900)),
    damage: wrongCounts,
  },
  {
    name: 'repair of an image that was not closed',
    image: { clusterSize: 512, lazyRefcounts: true },
    sectors: 512 * kib,
    before: (disk) => fill(disk, range(700)),
    damage: unwrittenCounts,
  },
  {
    name: 'repair by new refcount structures',
    image: { clusterSize: 512 },
    sectors: 512 * kib,
    before: (disk) => fill(disk, range(700)),
    damage: lostStructures,
  },
];

/** The workload of a name. */
export function workloadNamed(name: string): Workload {
  const found = workloads.find((workload) => workload.name === name);
  if (found === undefined) throw new Error(`there is no workload '${name}'`);
  return found;
}
