/**
 * The short way of an allocating write: one cluster that has no host cluster yet, whose slice is
 * cached, and around whose new bytes nothing needs to be written. Pooled requests, no waiting; what
 * does not fit takes the writer's long way.
 */
import { Counter } from '../../../engine/queues/counters.js';
import type { Resolve, WriteAgain } from '../../../engine/queues/request-pool.js';
import type { Completion } from '../../../storage/storage.js';
import { type GuestOffset, after, asGuestOffset, asHostOffset } from '../layout/geometry.js';
import { isKnownZero } from './copy-on-write.js';
import { type QueueContext, freshReadZero, intoLimbo, takeClusters } from './queue-context.js';
import {
  type Claim,
  type SliceSection,
  beginClaim,
  endClaim,
  inCachedSlice,
  unclaimed,
} from './slice-section.js';
import { ClusterKind } from '../layout/l2-entry.js';

/** A write under way, and its claim. */
class AllocatingWrite implements Completion, Claim {
  resolve: Resolve | undefined;
  reject: ((error: Error) => void) | undefined;
  buffer: Uint8Array | undefined;
  length = 0;
  guestOffset = asGuestOffset(0);
  epoch = 0;
  begun = 0;
  slot = 0;
  entry = 0;
  readonly count = 1;
  holder = unclaimed;
  /** Host offset in bytes of the new cluster. */
  hostOffset = asHostOffset(0);
  /** Mask of the subclusters that are written. */
  subclusters = 0;
  /** Whether the host cluster, before the write, reads as the guest cluster does: as zeroes. */
  showsNothing = false;
  /** Claims the cluster, if it can be written the short way. */
  readonly claim: SliceSection<true>;
  /** Points the entry at the cluster, which is written. */
  readonly link: () => void;
  readonly #writes: AllocatingWrites;

  constructor(writes: AllocatingWrites) {
    this.#writes = writes;
    this.claim = (slot, entry) => writes.claim(this, slot, entry);
    this.link = () => {
      writes.link(this);
    };
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
  tryWrite(buffer: Uint8Array, offset: GuestOffset, epoch: number): Promise<void> | undefined {
    const { metadata, arena, turns, externalData, payload } = this.#context;
    const { geometry } = metadata;
    const { clusterSize } = geometry;
    const within = geometry.within(offset);
    if (within + buffer.length > clusterSize || arena.available === 0 || externalData) {
      return undefined;
    }
    // Those that wait for their turn come first.
    if (turns !== undefined && !turns.isIdle) return undefined;
    // The long way looks more closely at the table.
    if (metadata.overlap.hasConflicts) return undefined;
    const write = this.#idle.pop() ?? new AllocatingWrite(this);
    write.guestOffset = offset;
    write.length = buffer.length;
    if (inCachedSlice(this.#context, offset, write.claim) === undefined) {
      this.#idle.push(write);
      return undefined;
    }
    write.buffer = buffer;
    write.epoch = epoch;
    write.begun = this.#context.counters.begin();
    write.hostOffset = takeClusters(this.#context, 1);
    write.subclusters = geometry.extendedL2
      ? metadata.entries.subclusterMask(within, buffer.length)
      : 0;
    const promise = new Promise<void>(this.#executor);
    write.resolve = this.#resolve;
    write.reject = this.#reject;
    payload.submitWrite(buffer, after(write.hostOffset, within), write, offset);
    return promise;
  }

  /** Links the cluster of a write that has ended, and ends its claim. */
  ended(write: AllocatingWrite, error: Error | null): void {
    const { resolve, reject, epoch, buffer, length, guestOffset } = write;
    let failure = error;
    try {
      this.#endClaim(write, error === null);
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

  /** Claims a write's cluster, if it can go the short way. */
  claim(write: AllocatingWrite, slot: number, entry: number): true | undefined {
    const { guestOffset, length } = write;
    if (!this.#canAllocate(slot, entry, guestOffset, length)) return undefined;
    const { geometry } = this.#context.metadata;
    write.showsNothing = this.#showsNothing(slot, entry, geometry.clusterStart(guestOffset));
    write.slot = slot;
    write.entry = entry;
    beginClaim(this.#context, write);
    return true;
  }

  /** Points the entry of a write at its cluster; the caller holds the slice's word. */
  link({ slot, entry, hostOffset, subclusters }: AllocatingWrite): void {
    const { geometry, l2Cache, entries } = this.#context.metadata;
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    if (subclusters === 0) entries.setNormal(l2Cache.view, at, hostOffset);
    else entries.setSubclusters(l2Cache.view, at, hostOffset, subclusters);
  }

  /** @throws ERR_COWHERD_POISONED */
  #endClaim(write: AllocatingWrite, written: boolean): void {
    const { geometry, flushOrder } = this.#context.metadata;
    if (written && !write.showsNothing) flushOrder.noteBeforeEntries();
    endClaim(this.#context, write, written ? write.link : undefined);
    if (written) return;
    const cluster = geometry.clusterAt(write.hostOffset);
    intoLimbo(this.#context, [{ cluster, count: 1 }], false);
  }

  /** Whether the cluster has nothing to be freed or copied; the caller holds the slice's word. */
  #canAllocate(slot: number, entry: number, offset: GuestOffset, length: number): boolean {
    const { geometry, l2Cache, claims, entries } = this.#context.metadata;
    if (claims.has(slot, entry)) return false;
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    const kind = entries.kind(l2Cache.view, at);
    if (kind !== ClusterKind.unallocated && kind !== ClusterKind.zeroPlain) return false;
    // Whole (sub)clusters have no edges; others need edges that are zero, and a cluster that is.
    const granule = geometry.subclusterSize;
    if (offset % granule === 0 && length % granule === 0) return true;
    return this.#showsNothing(slot, entry, after(offset, -(offset % granule)));
  }

  /** Whether the new cluster reads from a guest offset on as the guest cluster does: as zeroes. */
  #showsNothing(slot: number, entry: number, guestOffset: GuestOffset): boolean {
    const { geometry, l2Cache } = this.#context.metadata;
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    return freshReadZero(this.#context) && isKnownZero(this.#context, at, guestOffset);
  }
}
