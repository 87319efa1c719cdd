/** What one round of the stress run works on, chosen by its seed. */
import type { CreateOptions } from '../../src/image/api/options.js';
import { Random } from './random.js';

/** One round. */
export interface Scenario {
  readonly seed: number;
  readonly options: CreateOptions;
  /** Virtual size in bytes. */
  readonly size: number;
  readonly backing: 'none' | 'raw' | 'qcow2';
  /** Whether a snapshot made by the real tool holds what was there at first. */
  readonly snapshot: boolean;
  /** One in so many of the clusters written last is given back before the threads begin. */
  readonly apart: number;
  /** Bytes of metadata cache. */
  readonly cacheSize: number;
  readonly threads: number;
  /** Requests that each thread keeps under way. */
  readonly lanes: number;
  /** Requests of each lane. */
  readonly steps: number;
  /** Most sectors of a request. */
  readonly mostSectors: number;
}

/** The round of a seed. */
export function scenarioOf(seed: number, threads: number): Scenario {
  const random = new Random(seed);
  // One round in three has more tables than its cache holds: those of 24 MiB in the smallest clusters.
  const evicts = seed % 3 === 0;
  const clusterSize = evicts ? 512 : random.pick([512, 512, 4096, 65536]);
  const extendedL2 = clusterSize >= 16384 && random.chance(0.4);
  const version2 = !extendedL2 && random.chance(0.2);
  const dataFile = !version2 && random.chance(0.1);
  const lazyRefcounts = !version2 && random.chance(0.2);
  const snapshot = !dataFile && random.chance(0.3);
  // A snapshot raises the counts of clusters that several compressed ones share already.
  const refcountBits = version2 ? 16 : random.pick(snapshot ? [16, 32, 64] : [2, 8, 16, 64]);
  const backing = dataFile ? 'none' : random.pick(['none', 'raw', 'qcow2'] as const);
  const megabytes = evicts ? 24 : clusterSize === 512 ? 2 : clusterSize === 4096 ? 8 : 32;
  return {
    seed,
    options: {
      clusterSize,
      extendedL2,
      lazyRefcounts,
      refcountBits,
      compat: version2 ? '0.10' : '1.1',
      compressionType: !version2 && random.chance(0.3) ? 'zstd' : 'zlib',
      ...(dataFile && { dataFile: 'image.data' }),
    },
    size: megabytes * 1024 * 1024 - random.below(8) * 512,
    backing,
    snapshot,
    apart: random.pick([2, 3, 5, 200]),
    cacheSize: evicts ? 1 : random.pick([1, 1, 128 * 1024, 4 * 1024 * 1024]),
    threads,
    lanes: random.pick([2, 8, 24]),
    steps: 40 + random.below(60),
    mostSectors: random.pick([4, 16, 300]),
  };
}
