/** Handing clusters that nobody uses any more back to the allocator. */
import { ControlWord } from '../../../engine/words/control-block.js';
import { oldestEpoch } from '../../../engine/queues/epochs.js';
import { Counter, type QueueCounters } from '../../../engine/queues/counters.js';
import { takeReserved } from '../../../engine/queues/queue-line.js';
import { CowherdError } from '../../../errors.js';
import type { StorageFile } from '../../../storage/storage.js';
import { type ClusterIndex, after, asClusterIndex } from '../layout/geometry.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';

/** What reclaiming works with. */
export interface ReclaimContext {
  readonly metadata: Qcow2Metadata;
  /** The image file. */
  readonly file: StorageFile;
  readonly counters: QueueCounters;
}

/**
 * Lowers the counts of every cluster of the image's limbo that no request can still reach and whose
 * removal is durable; a cluster that becomes free is punched first, where that was asked for, so that
 * no late punch can meet its next use.
 *
 * @throws ERR_COWHERD_CORRUPT, when all others are done, if a count was too low already
 */
export async function reclaim(context: ReclaimContext): Promise<void> {
  const { metadata, file } = context;
  const { control, allocator, flushOrder, geometry, limbo } = metadata;
  if (limbo.clusters === 0) return;
  const entries = limbo.takeReleasable(oldestEpoch(control), flushOrder.completed);
  if (entries.length === 0) return;
  control.add(ControlWord.compressedGeneration, 1);
  let damage: CowherdError | undefined;
  for (const [index, entry] of entries.entries()) {
    let cluster = asClusterIndex(entry.cluster);
    let { count } = entry;
    try {
      await file.events?.hear('cluster_free');
      if (entry.punch) {
        for (const run of await lastReferences(context, cluster, count)) {
          await file.discard(geometry.startOf(run.cluster), run.count * geometry.clusterSize);
        }
      }
      while (count > 0) {
        const lowered = await allocator.lower(cluster, count);
        cluster = after(cluster, lowered);
        count -= lowered;
      }
    } catch (error) {
      // A count that says less than there is cannot be lowered, now or later; others can.
      if (error instanceof CowherdError && error.code === 'ERR_COWHERD_CORRUPT') {
        damage ??= error;
        continue;
      }
      // What is not lowered waits for a later pass, which punches it again.
      limbo.add({ ...entry, cluster, count });
      for (const left of entries.slice(index + 1)) limbo.add(left);
      throw error;
    }
    context.counters.add(Counter.reclaimedClusters, entry.count);
  }
  if (damage !== undefined) throw damage;
}

/**
 * Gets back every cluster that is counted and used by nobody, also what the arenas of all queues have
 * reserved, while no queue of any thread runs a request.
 *
 * @returns how many there were
 */
export async function reclaimAll(context: ReclaimContext): Promise<number> {
  const { control, allocator, flushOrder, limbo } = context.metadata;
  let count = limbo.clusters;
  if (count > 0) await flushOrder.flush();
  for (const { cluster, length } of takeReserved(control)) {
    await allocator.lowerAll(asClusterIndex(cluster), length);
    count += length;
  }
  await reclaim(context);
  return count - limbo.clusters;
}

/** The clusters of a run that have exactly one reference left: the one about to go. */
async function lastReferences(
  context: ReclaimContext,
  cluster: ClusterIndex,
  count: number,
): Promise<{ cluster: ClusterIndex; count: number }[]> {
  const runs: { cluster: ClusterIndex; count: number }[] = [];
  for (let next = cluster; next < cluster + count; next++) {
    if ((await context.metadata.refcounts.get(next)) !== 1) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.cluster + last.count === next) last.count++;
    else runs.push({ cluster: next, count: 1 });
  }
  return runs;
}
