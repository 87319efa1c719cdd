/** What changes of an image as a whole have in common, which are made while no queue of any thread runs a request. */
import { ControlWord } from '../../../engine/words/control-block.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import type { ClusterRun } from '../refcount/allocator.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { reclaimAll } from '../requests/reclaim.js';
import { OwedSteps } from './owed-steps.js';

/** Runs such changes of one image, and keeps what they have left to be done. */
export class ExclusiveChanges {
  readonly #metadata: Qcow2Metadata;
  /** Whether the image keeps its dirty bit set until it is closed. */
  #isLazy: boolean;
  readonly #owed = new OwedSteps();

  constructor(metadata: Qcow2Metadata, isLazy: boolean) {
    this.#metadata = metadata;
    this.#isLazy = isLazy;
  }

  /** Has the dirty bit be cleared after each change from now on. */
  endLaziness(): void {
    this.#isLazy = false;
  }

  /** Runs a change, between what makes the image ready for it and what ends it. */
  async run<Result>(change: () => Promise<Result>): Promise<Result> {
    await this.settle();
    await this.#begin();
    try {
      return await change();
    } finally {
      await this.#end();
    }
  }

  /** Does what changes have left to be done. */
  settle(): Promise<void> {
    return this.#owed.settle();
  }

  /** Does steps that follow from a change, as `OwedSteps` does. */
  later(...steps: readonly (() => Promise<void>)[]): Promise<void> {
    return this.#owed.later(...steps);
  }

  /**
   * Makes the image ready: everything in the file is as it is in memory, and nothing waits to be freed. It is marked
   * dirty, if it can be, since counts and flags are to contradict each other.
   */
  async #begin(): Promise<void> {
    const { control, counters, file, flushOrder, headerFile } = this.#metadata;
    control.store(ControlWord.changed, 1);
    if (headerFile.version === 3) {
      await headerFile.clearUnknownAutoclear();
      await headerFile.setDirty(true);
    }
    await flushOrder.flushAll();
    if ((await reclaimAll({ metadata: this.#metadata, file, counters })) > 0) {
      await flushOrder.flushAll();
    }
  }

  /** Ends a change; where something is left to be done, the image stays marked until that is. */
  async #end(): Promise<void> {
    const { headerFile } = this.#metadata;
    if (this.#isLazy || !this.#owed.isEmpty) return;
    await this.later(async () => {
      if (headerFile.isDirty) await headerFile.setDirty(false);
    });
  }
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
