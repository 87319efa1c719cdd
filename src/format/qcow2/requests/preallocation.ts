/** Places for clusters before anything is written to them: what is nowhere gets a cluster that reads as zeroes. */
import { Counter } from '../../../engine/queues/counters.js';
import { problemWith } from '../../../errors.js';
import type { PreallocateOptions } from '../../driver.js';
import {
  type GuestOffset,
  type HostOffset,
  after,
  asGuestOffset,
  asHostOffset,
} from '../layout/geometry.js';
import { Autoclear } from '../layout/header.js';
import { ClusterKind } from '../layout/l2-entry.js';
import { type QueueContext, intoLimbo, nothingBelow, takeClusters } from './queue-context.js';
import { type Claim, beginClaim, endClaim, inWritableSlice, unclaimed } from './slice-section.js';

/** Bytes that get their places at once, so that it can be cancelled in between. */
const pieceBytes = 64 * 1024 * 1024;

/** Clusters that were claimed, and their place. */
interface Place {
  readonly claim: Claim;
  readonly hostOffset: HostOffset;
}

type Step = Place | { readonly kept: number } | { readonly wanted: number };

/** One queue's way to give clusters their places. */
export class Preallocating {
  readonly #context: QueueContext;

  constructor(context: QueueContext) {
    this.#context = context;
  }

  /**
   * Gives a place to each cluster of a range that has none, and shows nothing of an image below; the others stay as
   * they are.
   *
   * @throws the signal's reason if it says so, with the places that were given kept
   */
  async run(offset: GuestOffset, length: number, options: PreallocateOptions): Promise<void> {
    const { metadata, file, arena, unflushed } = this.#context;
    const { clusterSize } = metadata.geometry;
    if (metadata.overlap.hasConflicts) {
      const why = 'Clusters of metadata overlap: none can be preallocated';
      throw problemWith('ERR_COWHERD_CORRUPT', file.filename, why);
    }
    const end = offset + length;
    for (let at = asGuestOffset(offset - (offset % clusterSize)); at < end;) {
      options.signal?.throwIfAborted();
      const most = Math.min(
        Math.ceil((end - at) / clusterSize),
        Math.ceil(pieceBytes / clusterSize),
      );
      const from = at;
      const step = await inWritableSlice(this.#context, from, (slot, entry) =>
        this.#plan(slot, entry, from, most, options.hidesBelow),
      );
      if ('wanted' in step) {
        await arena.refill(step.wanted);
        continue;
      }
      if (!('kept' in step)) await this.#fill(step, options);
      at = after(at, ('kept' in step ? step.kept : step.claim.count) * clusterSize);
    }
    unflushed.note();
  }

  /** Claims what is nowhere and its place; undefined where the first cluster is claimed. */
  #plan(
    slot: number,
    entry: number,
    offset: GuestOffset,
    most: number,
    hidesBelow: boolean,
  ): Step | undefined {
    const { metadata, arena, externalData } = this.#context;
    const { geometry, l2Cache, claims, entries } = metadata;
    if (claims.has(slot, entry)) return undefined;
    const count = Math.min(most, geometry.l2EntriesPerSlice - entry);
    const isFree = (index: number): boolean => {
      if (claims.has(slot, entry + index)) return false;
      const at = slot * l2Cache.sliceSize + (entry + index) * geometry.l2EntrySize;
      if (entries.kind(l2Cache.view, at) !== ClusterKind.unallocated) return false;
      const isBelow =
        !hidesBelow && !nothingBelow(this.#context, after(offset, index * geometry.clusterSize));
      return !isBelow;
    };
    if (!isFree(0)) return { kept: 1 };
    if (!externalData && arena.available === 0) return { wanted: count };
    const room = externalData ? count : Math.min(count, arena.available);
    let free = 1;
    while (free < room && isFree(free)) free++;
    const claim = { slot, entry, count: free, holder: unclaimed };
    // In a data file each cluster lies where it is on the disk.
    const hostOffset = externalData ? asHostOffset(offset) : takeClusters(this.#context, free);
    beginClaim(this.#context, claim);
    return { claim, hostOffset };
  }

  /** Whether what a data file holds is the disk, as whoever writes to that file sees it. */
  #showsDataFile(): boolean {
    const { geometry, headerFile } = this.#context.metadata;
    const { autoclearFeatures } = headerFile.header;
    return (autoclearFeatures & Autoclear.rawExternalData) !== 0 && !geometry.extendedL2;
  }

  async #fill(
    { claim, hostOffset }: Place,
    { mode, hidesBelow, signal }: PreallocateOptions,
  ): Promise<void> {
    const { metadata, externalData, counters, payload } = this.#context;
    const { geometry, flushOrder } = metadata;
    const length = claim.count * geometry.clusterSize;
    try {
      const isShown = mode === 'metadata' && this.#showsDataFile();
      if (!isShown) await payload.preallocate(hostOffset, length, mode, signal);
    } catch (error) {
      if (!externalData) {
        const removed = { cluster: geometry.clusterAt(hostOffset), count: claim.count };
        intoLimbo(this.#context, [removed], false);
      }
      endClaim(this.#context, claim);
      throw error;
    }
    flushOrder.noteBeforeEntries();
    endClaim(this.#context, claim, () => {
      // Zeroes of the file are noise to who deciphers them; and QEMU's say that they hide something.
      const isMarked = !payload.isPlain || (hidesBelow && (mode === 'metadata' || externalData));
      this.#link(claim, hostOffset, { isMarked, isFilled: hidesBelow });
    });
    counters.add(Counter.allocatedClusters, claim.count);
  }

  /**
   * @param isMarked whether the entries say that the clusters read as zeroes
   * @param isFilled whether all subclusters are there, or none, which has them read as what lies below
   */
  #link(
    { slot, entry, count }: Claim,
    hostOffset: HostOffset,
    { isMarked, isFilled }: { readonly isMarked: boolean; readonly isFilled: boolean },
  ): void {
    const { geometry, entries, l2Cache } = this.#context.metadata;
    const { view } = l2Cache;
    for (let index = 0; index < count; index++) {
      const at = slot * l2Cache.sliceSize + (entry + index) * geometry.l2EntrySize;
      const place = after(hostOffset, index * geometry.clusterSize);
      if (geometry.extendedL2 && !isFilled) entries.setPreallocated(view, at, place);
      else entries.setNormal(view, at, place);
      if (isMarked) entries.setZero(view, at, true);
    }
  }
}
