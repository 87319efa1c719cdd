/** Which host clusters an L2 entry holds references to, for when the entry goes. */
import { asHostOffset } from '../layout/geometry.js';
import type { QueueContext, RemovedClusters } from './queue-context.js';
import type { CorruptionError } from '../tables/corruption.js';
import { ClusterKind } from '../layout/l2-entry.js';

/**
 * Appends the host clusters that lose a reference when the entry at a position is overwritten.
 * Compressed data hold one reference to every cluster they touch (specification, "Compressed
 * Clusters Descriptor"). Clusters of an external data file are not counted; an entry that is
 * misaligned refers to none.
 */
export function removedByEntry(
  context: QueueContext,
  at: number,
  removed: RemovedClusters[],
): void {
  const { entries, l2Cache, geometry } = context.metadata;
  const { view } = l2Cache;
  const kind = entries.kind(view, at);
  if (kind === ClusterKind.compressed) {
    const offset = entries.compressedOffset(view, at);
    const first = geometry.clusterAt(offset);
    const end = geometry.clusters(offset + entries.compressedSize(view, at));
    removed.push({ cluster: first, count: end - first });
  } else if (
    (kind === ClusterKind.normal || kind === ClusterKind.zeroAllocated) &&
    !context.externalData
  ) {
    const hostOffset = entries.hostOffset(view, at);
    if (geometry.within(hostOffset) !== 0) return;
    const cluster = geometry.clusterAt(hostOffset);
    const last = removed.at(-1);
    if (last !== undefined && last.cluster + last.count === cluster) {
      removed[removed.length - 1] = { cluster: last.cluster, count: last.count + 1 };
    } else {
      removed.push({ cluster, count: 1 });
    }
  }
}

/**
 * Why the entry at a position must not be overwritten: it refers to clusters that hold metadata,
 * which would be freed.
 */
export function refusedRemoval(context: QueueContext, at: number): CorruptionError | undefined {
  const { entries, l2Cache, geometry, overlap } = context.metadata;
  const { view } = l2Cache;
  const kind = entries.kind(view, at);
  let hostOffset = asHostOffset(0);
  let length = 0;
  if (kind === ClusterKind.compressed) {
    hostOffset = entries.compressedOffset(view, at);
    length = entries.compressedSize(view, at);
  } else if (!context.externalData && kind >= ClusterKind.zeroAllocated) {
    hostOffset = entries.hostOffset(view, at);
    length = geometry.clusterSize;
  }
  const hit = overlap.find(hostOffset, length);
  return hit && overlap.refusal(hit, 'freeing a cluster');
}
