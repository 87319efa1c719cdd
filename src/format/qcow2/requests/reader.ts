/** Executing reads: plan each run from the cached slices, then fetch all runs side by side. */
import assert from 'node:assert/strict';
import { Counter } from '../../../engine/queues/counters.js';
import type { StorageFile } from '../../../storage/storage.js';
import { type GuestOffset, type HostOffset, after, asHostOffset } from '../layout/geometry.js';
import type { CompressedReader } from './compressed-reader.js';
import type { QueueContext } from './queue-context.js';
import { CorruptionError } from '../tables/corruption.js';
import { Run, RunKind } from '../layout/plan.js';

/** What `locate` gives where a request cannot go the short way; less than every host offset. */
export const nowhere = asHostOffset(-1);

/** One queue's reads. */
export class Reader {
  readonly #context: QueueContext;
  readonly #compressed: CompressedReader;
  readonly #run = new Run();

  constructor(context: QueueContext, compressed: CompressedReader) {
    this.#context = context;
    this.#compressed = compressed;
  }

  /**
   * Finds where a range lies if it is stored in one piece and its slice is cached; neither waits
   * nor allocates.
   *
   * @returns the host offset, or `nowhere` if `read` has to do it
   */
  locate(offset: GuestOffset, length: number): HostOffset {
    const { metadata } = this.#context;
    const key = metadata.sliceKey(offset);
    const slot = metadata.l2Cache.find(key);
    if (slot < 0) return nowhere;
    this.#context.counters.add(Counter.cacheHits);
    const run = this.#run;
    if (!this.#planCached(key, slot, offset, length, run)) return nowhere;
    return run.kind === RunKind.data && run.length === length ? run.hostOffset : nowhere;
  }

  /** Fills the buffer from a guest offset; bytes past the end of the disk read as its tables say. */
  async read(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    const run = new Run();
    const fetches: Promise<void>[] = [];
    try {
      for (let done = 0; done < buffer.length; done += run.length) {
        const from = after(offset, done);
        await this.plan(from, buffer.length - done, run);
        assert(run.length > 0, 'a step of a read reads nothing');
        const target = buffer.subarray(done, done + run.length);
        const fetch = this.#fetch(run, target, from);
        if (fetch === undefined) continue;
        fetches.push(fetch);
        // Its failure is met below; until then, while others are planned, it must not go unhandled.
        if (run.length < buffer.length - done) fetch.catch(() => undefined);
      }
    } finally {
      // Also after a failure no fetch may go on into a buffer that the caller has back.
      await Promise.allSettled(fetches);
    }
    await Promise.all(fetches);
  }

  /** Plans the run that begins at a guest offset, loading its slice if need be. */
  async plan(offset: GuestOffset, length: number, run: Run): Promise<void> {
    const { metadata } = this.#context;
    const { geometry, l2Cache } = metadata;
    const key = metadata.sliceKey(offset);
    for (;;) {
      const cached = l2Cache.find(key);
      if (cached >= 0 && this.#planCached(key, cached, offset, length, run)) return;
      if (!metadata.hasTable(offset)) {
        run.kind = RunKind.unallocated;
        run.hasHost = false;
        run.length = Math.min(length, geometry.tableReach - (offset % geometry.tableReach));
        return;
      }
      const slot = await metadata.acquireSlice(key);
      const planned = this.#planCached(key, slot, offset, length, run);
      l2Cache.unpin(slot);
      if (planned) return;
    }
  }

  #planCached(key: number, slot: number, offset: GuestOffset, length: number, run: Run): boolean {
    const { l2Cache, planner } = this.#context.metadata;
    l2Cache.lockShared(slot);
    const held = l2Cache.holds(slot, key);
    if (held) planner.plan(l2Cache.view, slot * l2Cache.sliceSize, offset, length, run);
    l2Cache.unlockShared(slot);
    return held;
  }

  /** Starts fetching a planned run; undefined if it is there already. */
  #fetch(run: Run, target: Uint8Array, offset: GuestOffset): Promise<void> | undefined {
    const { payload, metadata } = this.#context;
    switch (run.kind) {
      case RunKind.data:
        return payload.read(target, offset, run.hostOffset);
      case RunKind.zero:
        target.fill(0);
        return undefined;
      case RunKind.unallocated:
        return this.#fetchBelow(target, offset);
      case RunKind.compressed: {
        const within = metadata.geometry.within(offset);
        return this.#compressed.read(run.hostOffset, run.compressedSize, within, target);
      }
      case RunKind.corrupt:
        throw corruptEntry(this.#context, offset);
    }
  }

  #fetchBelow(target: Uint8Array, offset: GuestOffset): Promise<void> | undefined {
    const { backing } = this.#context;
    const below = backing ? Math.max(0, Math.min(target.length, backing.size - offset)) : 0;
    if (below < target.length) target.fill(0, below);
    if (backing === undefined || below === 0) return undefined;
    const part = target.subarray(0, below);
    const heard = this.#context.file.events?.hear('read_backing_aio');
    return heard === undefined
      ? backing.read(part, offset)
      : heard.then(() => backing.read(part, offset));
  }
}

/** The error for an L2 entry that contradicts the format. */
export function corruptEntry(
  context: { readonly file: StorageFile },
  guestOffset: GuestOffset,
): CorruptionError {
  const problem = `the L2 entry of guest offset ${guestOffset} is invalid`;
  return new CorruptionError(context.file.filename, problem, guestOffset);
}
