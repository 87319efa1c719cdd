/** How much memory the caches of an image get, by what its opener asked for; QEMU's rules. */
import { cannotOpen } from '../../../errors.js';
import { defaultCacheBytes, minCacheBytes } from '../../../limits.js';
import type { CacheSizes } from '../../driver.js';

/** Share of the memory that L2 slices get where nothing else is said; refcount slices get the rest. */
const l2Share = 7 / 8;
/** The smallest cluster, and the least of a table that QEMU reads at once. */
const leastEntryBytes = 512;

/** Bytes. */
export interface CacheShares {
  readonly l2: number;
  readonly refcounts: number;
}

/**
 * Shares memory between the caches. What is less than they need is made as much.
 *
 * @param sizes what was asked for, in bytes
 * @throws ERR_COWHERD_INVALID_ARGUMENT for sizes that contradict each other
 */
export function shareCaches(
  { total, l2, refcounts, l2Entry }: CacheSizes,
  clusterSize: number,
  filename: string,
): CacheShares {
  const refuse = (why: string): Error => cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
  if (total !== undefined) {
    if (l2 !== undefined && refcounts !== undefined) {
      throw refuse(
        'cache-size, l2-cache-size and refcount-cache-size may not be set at the same time',
      );
    }
    if ((l2 ?? 0) > total) throw refuse('l2-cache-size may not exceed cache-size');
    if ((refcounts ?? 0) > total) throw refuse('refcount-cache-size may not exceed cache-size');
  }
  if (l2Entry !== undefined && !isEntrySize(l2Entry, clusterSize)) {
    throw refuse(
      `L2 cache entry size must be a power of two between ${leastEntryBytes} and the cluster size (${clusterSize})`,
    );
  }
  const budget = Math.max(total ?? defaultCacheBytes, minCacheBytes);
  const rest = (other: number | undefined): number | undefined =>
    total === undefined || other === undefined ? undefined : total - other;
  const least = minCacheBytes * l2Share;
  return {
    l2: Math.max(l2 ?? rest(refcounts) ?? budget * l2Share, least),
    refcounts: Math.max(refcounts ?? rest(l2) ?? budget * (1 - l2Share), minCacheBytes - least),
  };
}

function isEntrySize(bytes: number, clusterSize: number): boolean {
  return bytes >= leastEntryBytes && bytes <= clusterSize && Number.isInteger(Math.log2(bytes));
}
