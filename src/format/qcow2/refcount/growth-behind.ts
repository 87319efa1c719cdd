/**
 * Growth of the reference counts as QEMU does it: a block lies behind the run of clusters that needs it, and a longer
 * table with further blocks at the begin of the next range that no block counts yet. The run is looked for again
 * when they are there: what the table leaves may be the first gap then.
 *
 *     [ run ][ block ]  … rest of its range, free …  [ blocks for what the table comes to count ][ table ]
 */
import { type ClusterIndex, type Geometry, after, asClusterIndex } from '../layout/geometry.js';
import type { Growth } from './growth.js';
import type { Refcounts } from './refcounts.js';

/**
 * What has to grow so that a cluster is counted which no block counts yet.
 *
 * @param place behind the run, where nothing lies from then on
 */
export function planGrowthBehind(
  geometry: Geometry,
  refcounts: Refcounts,
  cluster: ClusterIndex,
  place: ClusterIndex,
): Growth {
  const { refcountsPerBlock, clusterSize } = geometry;
  const { length } = refcounts.table;
  const numberOf = (each: number): number => Math.floor(each / refcountsPerBlock);
  const blocks = new Map([[numberOf(cluster), place]]);
  // One that another block counts needs that.
  if (!refcounts.hasBlock(place)) {
    const own = numberOf(place);
    if (!blocks.has(own)) blocks.set(own, after(place, 1));
  }
  if ([...blocks.keys()].every((block) => block < length)) {
    return { tableClusters: 0, tableAt: place, blocks };
  }
  const used = numberOf(Math.max(cluster, place + blocks.size - 1)) + 1;
  const begin = asClusterIndex(used * refcountsPerBlock);
  const total = blocksFor(geometry, begin);
  for (let block = used; block < total; block++) blocks.set(block, after(begin, block - used));
  const entries = total + Math.ceil(total / 2);
  return {
    tableClusters: Math.ceil((entries * 8) / clusterSize),
    tableAt: after(begin, total - used),
    blocks,
  };
}

/** How many blocks count so many clusters with the table and the blocks themselves, half a table more included. */
function blocksFor({ refcountsPerBlock, clusterSize }: Geometry, clusters: number): number {
  const entriesPerCluster = clusterSize / 8;
  let counted = clusters;
  let isGenerous = false;
  for (let table = 0, blocks = 0, before = 0; ;) {
    blocks = Math.ceil((counted + table + blocks) / refcountsPerBlock);
    table = Math.ceil(blocks / entriesPerCluster);
    const all = counted + blocks + table;
    if (all === before && isGenerous) return blocks;
    if (all === before) {
      counted += Math.ceil(table / 2);
      isGenerous = true;
      before = 0;
    } else before = all;
  }
}
