/**
 * The short way of an allocating write: one cluster that has no host cluster yet, whose slice is
 * cached, and around whose new bytes nothing needs to be written. Pooled requests, no waiting; what
 * does not fit takes the writer's long way.
 */
import { Counter } from '../../../engine/queues/counters.js';
import type { Resolve, WriteAgain } from '../../../engine/queues/request-pool.js';
import type { Completion } from '../../../storage/storage.js';
import { type QueueContext, freshReadZero, intoLimbo, nothingBelow } from './queue-context.js';
import { ClusterKind } from '../layout/l2-entry.js';

/** A write under way, with the claim it ends. */
class AllocatingWrite implements Completion {
  resolve: Resolve | undefined;
  reject: ((error: Error) => void) | undefined;
  buffer: Uint8Array | undefined;
  length = 0;
  guestOffset = 0;
  epoch = 0;
  begun = 0;
  slot = 0;
  entry = 0;
  /** Host offset in bytes of the new cluster. */
  hostOffset = 0;
  /** Mask of the subclusters that are written. */
  subclusters = 0;
  /** Whether the host cluster, before the write, reads as the guest cluster does: as zeroes. */
  showsNothing = false;
  readonly #writes: AllocatingWrites;

  constructor(writes: AllocatingWrites) {
    this.#writes = writes;
  }

  complete(error: Error | null): void {
    this.#writes.ended(this, error);
  }
}

/** The short allocating writes of one queue. */
export class AllocatingWrites {
  readonly #context: QueueContext;
  readonly #onEnd: (epoch: number) => void;
  readonly #idle: AllocatingWrite[] = [];
  readonly #again: WriteAgain;
  #resolve: Resolve | undefined;
  #reject: ((error: Error) => void) | undefined;
  readonly #executor = (resolve: Resolve, reject: (error: Error) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  /**
   * @param onEnd called with its epoch when a write has ended
   * @param again called with a write that has failed
   */
  constructor(context: QueueContext, onEnd: (epoch: number) => void, again: WriteAgain) {
    this.#context = context;
    this.#onEnd = onEnd;
    this.#again = again;
  }

  /**
   * Starts a write if it can go the short way.
   *
   * @returns undefined, with nothing done, if it cannot
   */
  tryWrite(buffer: Uint8Array, offset: number, epoch: number): Promise<void> | undefined {
    const { metadata, arena, turns, externalData, payload } = this.#context;
    const { geometry, l2Cache, claims } = metadata;
    const { clusterSize } = geometry;
    const within = geometry.within(offset);
    if (within + buffer.length > clusterSize || arena.available === 0 || externalData) {
      return undefined;
    }
    // Those that wait for their turn come first.
    if (turns !== undefined && !turns.isIdle) return undefined;
    // The long way looks more closely at the table.
    if (metadata.overlap.hasConflicts) return undefined;
    if (!metadata.ownsTable(Math.floor(offset / geometry.tableReach))) return undefined;
    const key = metadata.sliceKey(offset);
    const slot = l2Cache.find(key);
    if (slot < 0) return undefined;
    const entry = geometry.entryInSlice(offset);
    l2Cache.lockExclusive(slot);
    if (!l2Cache.holds(slot, key) || !this.#canAllocate(slot, entry, offset, buffer.length)) {
      l2Cache.unlockExclusive(slot);
      return undefined;
    }
    const showsNothing =
      freshReadZero(this.#context) && this.#showsZeroes(slot, entry, offset - within);
    claims.add(slot, entry, 1, this.#context.line);
    l2Cache.pin(slot);
    l2Cache.unlockExclusive(slot);
    const write = this.#idle.pop() ?? new AllocatingWrite(this);
    write.buffer = buffer;
    write.length = buffer.length;
    write.guestOffset = offset;
    write.showsNothing = showsNothing;
    write.epoch = epoch;
    write.begun = this.#context.counters.begin();
    write.slot = slot;
    write.entry = entry;
    write.hostOffset = arena.take(1) * clusterSize;
    write.subclusters = geometry.extendedL2
      ? metadata.entries.subclusterMask(within, buffer.length)
      : 0;
    const promise = new Promise<void>(this.#executor);
    write.resolve = this.#resolve;
    write.reject = this.#reject;
    payload.submitWrite(buffer, write.hostOffset + within, write, offset);
    return promise;
  }

  /** Links the cluster of a write that has ended, and ends its claim. */
  ended(write: AllocatingWrite, error: Error | null): void {
    const { resolve, reject, epoch, buffer, length, guestOffset } = write;
    let failure = error;
    try {
      this.#link(write, error === null);
    } catch (reason) {
      failure ??= reason as Error;
    }
    write.resolve = undefined;
    write.reject = undefined;
    write.buffer = undefined;
    const again = failure === null ? undefined : this.#again(failure, buffer!, length, guestOffset);
    const { counters } = this.#context;
    if (failure === null) counters.add(Counter.allocatedClusters);
    else if (again === undefined) counters.add(Counter.failures);
    counters.end(write.begun);
    this.#idle.push(write);
    this.#onEnd(epoch);
    if (failure === null || again !== undefined) resolve?.(again);
    else reject?.(failure);
  }

  /** @throws ERR_COWHERD_POISONED */
  #link(write: AllocatingWrite, written: boolean): void {
    const { metadata } = this.#context;
    const { geometry, l2Cache, claims, entries } = metadata;
    const { slot, entry, hostOffset, subclusters } = write;
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    if (written && !write.showsNothing) metadata.flushOrder.noteBeforeEntries();
    l2Cache.lockExclusive(slot);
    if (written) {
      if (subclusters === 0) entries.setNormal(l2Cache.view, at, hostOffset);
      else entries.setSubclusters(l2Cache.view, at, hostOffset, subclusters);
      l2Cache.markDirty(slot);
    }
    claims.remove(slot, entry, 1);
    l2Cache.unlockExclusive(slot);
    l2Cache.waiting.wake(slot);
    l2Cache.unpin(slot);
    if (written) return;
    intoLimbo(this.#context, [{ cluster: hostOffset / geometry.clusterSize, count: 1 }], false);
  }

  /** Whether the cluster has nothing to be freed or copied; the caller holds the slice's word. */
  #canAllocate(slot: number, entry: number, offset: number, length: number): boolean {
    const { geometry, l2Cache, claims, entries } = this.#context.metadata;
    if (claims.has(slot, entry)) return false;
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    const kind = entries.kind(l2Cache.view, at);
    if (kind !== ClusterKind.unallocated && kind !== ClusterKind.zeroPlain) return false;
    // Whole (sub)clusters have no edges; others need edges that are zero, and a cluster that is.
    const granule = geometry.subclusterSize;
    if (offset % granule === 0 && length % granule === 0) return true;
    return (
      freshReadZero(this.#context) && this.#showsZeroes(slot, entry, offset - (offset % granule))
    );
  }

  /** Whether a cluster without a host cluster reads as zeroes from a guest offset on. */
  #showsZeroes(slot: number, entry: number, guestOffset: number): boolean {
    const { geometry, l2Cache, entries } = this.#context.metadata;
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    return (
      entries.kind(l2Cache.view, at) === ClusterKind.zeroPlain ||
      nothingBelow(this.#context, guestOffset)
    );
  }
}
