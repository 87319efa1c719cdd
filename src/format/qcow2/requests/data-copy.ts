/**
 * Filling an image with data of other files: clusters that nothing refers to yet are claimed, the host
 * copies what is not zeroes into the clusters the arena gives next, one copy after the other, and what
 * was written is linked. So the data lie in the order of the copies, without a gap where zeroes were.
 */
import assert from 'node:assert/strict';
import { Counter } from '../../../engine/queues/counters.js';
import type { Turn, Turnstile } from '../../../engine/queues/turnstile.js';
import type { CopiedPart, CopyRule, CopySegment, DataCopier } from '../../../storage/storage.js';
import { type DataCopy, copiedBytes } from '../../driver.js';
import { type ClusterIndex, type GuestOffset, after, asHostOffset } from '../layout/geometry.js';
import { type QueueContext, intoLimbo, nothingBelow, takeClusters } from './queue-context.js';
import { type Claim, beginClaim, endClaim, inWritableSlice, unclaimed } from './slice-section.js';
import { ClusterKind } from '../layout/l2-entry.js';

/** Clusters that were taken from the arena and are given to copies from the front on. */
interface Room {
  cluster: ClusterIndex;
  count: number;
  readonly knownZero: boolean;
}

/** Runs a change of the image from its begin to its end. */
type RunChange = (change: () => Promise<void>) => Promise<void>;

/**
 * A queue's way to fill its image; undefined where places cannot be taken in the order of the copies, or
 * data are not stored in clusters that are wholly written.
 */
export function openDataCopy(
  context: QueueContext,
  sparseSize: number,
  run: RunChange,
): DataCopy | undefined {
  const { metadata, externalData, payload, turns } = context;
  if (turns === undefined || externalData || metadata.geometry.extendedL2) return undefined;
  if (!payload.isPlain) return undefined;
  // A write looks more closely at where it goes.
  if (metadata.overlap.hasConflicts) return undefined;
  return new ClusterCopy(context, turns, sparseSize, run);
}

class ClusterCopy implements DataCopy {
  readonly mostBytes: number;
  readonly granule: number;
  readonly #context: QueueContext;
  readonly #turns: Turnstile;
  readonly #rule: CopyRule;
  #copier: DataCopier;
  readonly #run: RunChange;
  /** Given to the copier, and not written as far as is known. */
  readonly #room: Room[] = [];
  /** Clusters that copies under way may need. */
  #promised = 0;

  constructor(context: QueueContext, turns: Turnstile, sparseSize: number, run: RunChange) {
    const { clusterSize, sliceReach } = context.metadata.geometry;
    this.mostBytes = Math.min(Math.max(copiedBytes, clusterSize), sliceReach);
    this.granule = clusterSize;
    this.#context = context;
    this.#turns = turns;
    this.#rule = { granule: clusterSize, sparseSize };
    this.#copier = context.payload.dataCopier(this.#rule);
    this.#run = run;
  }

  async copy(
    segments: readonly CopySegment[],
    offset: GuestOffset,
    length: number,
  ): Promise<readonly CopiedPart[] | undefined> {
    let parts: readonly CopiedPart[] | undefined;
    await this.#run(async () => {
      const turn = this.#turns.take(() => `the copy to guest offset ${offset}`);
      try {
        await turn.begins;
        parts = await this.#copy(segments, offset, length, turn);
        const { dirtyMap } = this.#context.metadata;
        for (const { at, length: bytes } of parts ?? []) dirtyMap.note(offset + at, bytes);
      } finally {
        turn.end();
      }
    });
    return parts;
  }

  /** @param turn ends once the copy has its place in the order */
  async #copy(
    segments: readonly CopySegment[],
    offset: GuestOffset,
    length: number,
    turn: Turn,
  ): Promise<readonly CopiedPart[] | undefined> {
    const claim = await this.#claim(offset, length);
    if (claim === undefined) return undefined;
    this.#promised += claim.count;
    let written: readonly CopiedPart[] | undefined;
    try {
      if (!(await this.#makeRoom())) return undefined;
      const copying = this.#copier.copy(segments, offset, length);
      turn.end();
      const { parts, failure } = await copying;
      for (const part of parts) this.#useRoom(part);
      if (failure !== undefined) {
        this.#giveUp(parts);
        return undefined;
      }
      written = parts;
    } finally {
      this.#promised -= claim.count;
      if (this.#promised === 0) this.#giveBackRoom();
      this.#endClaim(claim, written ?? []);
    }
    this.#context.unflushed.note();
    return written;
  }

  /** Claims the clusters of a range, unless something is there already, or shows through. */
  async #claim(offset: GuestOffset, length: number): Promise<Claim | undefined> {
    const { geometry, l2Cache, claims, entries } = this.#context.metadata;
    const isBelow = !nothingBelow(this.#context, offset);
    const count = geometry.clusters(length);
    const isFree = (slot: number, index: number): boolean => {
      if (claims.has(slot, index)) return false;
      const at = slot * l2Cache.sliceSize + index * geometry.l2EntrySize;
      const kind = entries.kind(l2Cache.view, at);
      return kind === ClusterKind.zeroPlain || (kind === ClusterKind.unallocated && !isBelow);
    };
    const claim = await inWritableSlice(this.#context, offset, (slot, entry) => {
      assert(entry + count <= geometry.l2EntriesPerSlice, 'a copy spans more than one slice');
      let free = 0;
      while (free < count && isFree(slot, entry + free)) free++;
      if (free < count) return 'taken';
      const claimed = { slot, entry, count, holder: unclaimed };
      beginClaim(this.#context, claimed);
      return claimed;
    });
    return claim === 'taken' ? undefined : claim;
  }

  /** Sees to it that all copies under way have room. @returns false if there is none to be had */
  async #makeRoom(): Promise<boolean> {
    const { arena, metadata } = this.#context;
    const { geometry } = metadata;
    const { clusterSize } = geometry;
    for (let wanted = this.#lacking(); wanted > 0; wanted = this.#lacking()) {
      try {
        if (arena.available === 0) await arena.refill(wanted);
      } catch {
        // Who writes it in the other way meets the same, and tells.
        return false;
      }
      const count = Math.min(wanted, arena.available);
      if (count === 0) continue;
      const { knownZero } = arena;
      const cluster = geometry.clusterAt(takeClusters(this.#context, count));
      this.#copier.offer(geometry.startOf(cluster), count * clusterSize, knownZero);
      this.#room.push({ cluster, count, knownZero });
    }
    return true;
  }

  /** Clusters that copies under way may need beyond the room there is. */
  #lacking(): number {
    return this.#room.reduce((lacking, { count }) => lacking - count, this.#promised);
  }

  /** Takes note that a part was written. */
  #useRoom({ length }: CopiedPart): void {
    for (let rest = length / this.granule; rest > 0;) {
      const [first] = this.#room;
      const used = Math.min(rest, first.count);
      first.cluster = after(first.cluster, used);
      first.count -= used;
      rest -= used;
      if (first.count === 0) this.#room.shift();
    }
  }

  /** Gives back what no copy has used, once none is under way. */
  #giveBackRoom(): void {
    if (this.#room.length === 0) return;
    for (const { cluster, count, knownZero } of this.#room.reverse()) {
      if (this.#context.arena.giveBack({ cluster, length: count, knownZero })) continue;
      intoLimbo(this.#context, [{ cluster, count }], false);
    }
    this.#room.length = 0;
    // The former one has that room still.
    this.#copier = this.#context.payload.dataCopier(this.#rule);
  }

  /** Gives up the clusters of a copy that has failed. */
  #giveUp(parts: readonly CopiedPart[]): void {
    const { geometry } = this.#context.metadata;
    const removed = parts.map(({ length, hostOffset }) => ({
      cluster: geometry.clusterAt(asHostOffset(hostOffset)),
      count: length / geometry.clusterSize,
    }));
    intoLimbo(this.#context, removed, false);
  }

  /** Ends a claim with its entries pointing at what was written; the others stay as they are. */
  #endClaim(claim: Claim, parts: readonly CopiedPart[]): void {
    if (parts.length === 0) {
      endClaim(this.#context, claim);
      return;
    }
    this.#context.metadata.flushOrder.noteBeforeEntries();
    endClaim(this.#context, claim, () => {
      this.#link(claim, parts);
    });
  }

  #link({ slot, entry }: Claim, parts: readonly CopiedPart[]): void {
    const { metadata, counters } = this.#context;
    const { geometry, entries, l2Cache } = metadata;
    const { clusterSize, l2EntrySize } = geometry;
    for (const { at, length, hostOffset } of parts) {
      const first = entry + at / clusterSize;
      for (let index = 0; index < length / clusterSize; index++) {
        const place = slot * l2Cache.sliceSize + (first + index) * l2EntrySize;
        entries.setNormal(l2Cache.view, place, asHostOffset(hostOffset + index * clusterSize));
      }
      counters.add(Counter.allocatedClusters, length / clusterSize);
    }
  }
}
