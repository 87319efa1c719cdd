/**
 * A disk whose free host clusters lie apart, one by one, and what is asked of it then: compressed and
 * plain writes, new L2 tables, new refcount blocks once what is free is used up, what a snapshot holds,
 * and clusters given back. Properties, schedules and the long runs all draw from it.
 */

/** What such a disk is made by. */
export interface FragmentedSpaceOptions {
  /** Bytes. */
  readonly clusterSize: number;
  /** Guest clusters that are written before anything else, from the first one on. */
  readonly filled: number;
  /** One in so many of them is given back again. */
  readonly apart: number;
  /** L2 tables that are not there yet when the requests begin. */
  readonly tables: number;
}

/** Guest clusters of such a disk, by what was done to them. */
export interface FragmentedSpace {
  /** Clusters of the disk. */
  readonly clusters: number;
  /** Written first; a snapshot, if one is taken, is taken then. */
  readonly held: readonly number[];
  /** Written after them, one after the other. */
  readonly written: readonly number[];
  /** Of these, what is given back before the requests begin; no two are neighbours. */
  readonly given: readonly number[];
  /** One for each L2 table that is not there yet. */
  readonly unmapped: readonly number[];
  /** Where requests begin, so that each of these kinds is met. */
  readonly touched: readonly number[];
}

/** How often requests of each kind are made there. */
export const mixedWeights = {
  write: 4,
  compress: 4,
  discard: 2,
  zero: 1,
  read: 1,
  flush: 1,
} as const;

/** The share of the clusters filled that a snapshot holds. */
const heldShare = 1 / 4;
/** Requests take no more clusters of one kind than this, so that they meet. */
const mostTouched = 24;

/** The clusters of a fragmented disk. */
export function fragmentedSpace(options: FragmentedSpaceOptions): FragmentedSpace {
  const { clusterSize, filled, apart, tables } = options;
  const perTable = clusterSize / 8;
  const firstTable = Math.ceil(filled / perTable);
  const all = Array.from({ length: filled }, (_, cluster) => cluster);
  const held = all.slice(0, filled * heldShare);
  const written = all.slice(filled * heldShare);
  const given = written.filter((_, index) => index % apart === 0);
  const unmapped = Array.from({ length: tables }, (_, table) => (firstTable + table) * perTable);
  const touched = [held, given, unmapped].flatMap((clusters) => clusters.slice(0, mostTouched));
  return { clusters: (firstTable + tables) * perTable, held, written, given, unmapped, touched };
}
