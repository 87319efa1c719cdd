/** What changes of an image as a whole have in common, which are made while no queue of any thread runs a request. */
import { ControlWord } from '../../../engine/words/control-block.js';
import { Autoclear } from '../layout/header.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import type { ClusterRun } from '../refcount/allocator.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { reclaimAll } from '../requests/reclaim.js';

/** Runs such changes of one image, and keeps what they have left to be done. */
export class ExclusiveChanges {
  readonly #metadata: Qcow2Metadata;
  /** Whether the image keeps its dirty bit set until it is closed. */
  #isLazy: boolean;
  /** Steps that follow from changes that were made, or failed, and have not been done yet. */
  readonly #owed: (() => Promise<void>)[] = [];

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
  async settle(): Promise<void> {
    for (let step; (step = this.#owed.at(0)) !== undefined; this.#owed.shift()) await step();
  }

  /** Does steps now, each once; before the next change or at the end, if they cannot be done now. */
  async later(...steps: readonly (() => Promise<void>)[]): Promise<void> {
    this.#owed.push(...steps);
    await this.settle().catch(() => undefined);
  }

  /**
   * Makes the image ready: everything in the file is as it is in memory, and nothing waits to be freed. It is marked
   * dirty, if it can be, since counts and flags are to contradict each other.
   */
  async #begin(): Promise<void> {
    const { control, counters, file, flushOrder, headerFile } = this.#metadata;
    control.store(ControlWord.changed, 1);
    if (headerFile.version === 3) {
      // The disk stays as it is, so that what is known of its changes does too.
      await headerFile.clearAutoclear(Autoclear.bitmaps | Autoclear.rawExternalData);
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
    if (this.#isLazy || this.#owed.length > 0) return;
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
