/** What changes of an image as a whole have in common, which are made while no queue of any thread runs a request. */
import { ControlWord } from '../../../engine/words/control-block.js';
import { Autoclear } from '../layout/header.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import type { ClusterRun } from '../refcount/allocator.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { reclaimAll } from '../requests/reclaim.js';

/**
 * Makes an image ready for a change of its tables around the caches: everything in the file is as it is in memory, and
 * nothing waits to be freed. It is marked dirty, if it can be, since counts and flags are to contradict each other.
 */
export async function readyForChange(metadata: Qcow2Metadata): Promise<void> {
  const { control, counters, file, flushOrder, headerFile } = metadata;
  control.store(ControlWord.changed, 1);
  if (headerFile.version === 3) {
    // The disk stays as it is, so that what is known of its changes does too.
    await headerFile.clearAutoclear(Autoclear.bitmaps | Autoclear.rawExternalData);
    await headerFile.setDirty(true);
  }
  await flushOrder.flushAll();
  if ((await reclaimAll({ metadata, file, counters })) > 0) await flushOrder.flushAll();
}

/** Counts references less that nothing makes any more; what has none is given to the host, if that takes it. */
export async function lowerCounts(metadata: Qcow2Metadata, counts: PackedCounts): Promise<void> {
  const { allocator, control, file, geometry } = metadata;
  const freed = await allocator.changeAll(counts, -1);
  // What queues have inflated of it is not what will lie there.
  control.add(ControlWord.compressedGeneration, 1);
  for (const { cluster, length } of freed) {
    const bytes = length * geometry.clusterSize;
    // Later it could hit what has come to lie there.
    await file.discard(geometry.startOf(cluster), bytes).catch(() => undefined);
  }
}

/** One reference to each cluster of a run. */
export function countsOf({
  cluster,
  length,
}: Pick<ClusterRun, 'cluster' | 'length'>): PackedCounts {
  const counts = new PackedCounts(0);
  counts.increment(cluster, length);
  return counts;
}
