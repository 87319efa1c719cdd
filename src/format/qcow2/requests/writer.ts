/**
 * Executing writes. A write is cut into steps, each within one L2 slice:
 * in place, where the clusters are this image's own and written already; or allocating, which
 * claims its clusters, writes them with their copy-on-write edges as one request, links them, and
 * ends the claim. Steps of one write run side by side.
 */
import assert from 'node:assert/strict';
import { Counter } from '../../../engine/queues/counters.js';
import type { Turn } from '../../../engine/queues/turnstile.js';
import { givenAway } from '../../../errors.js';
import {
  type ClusterIndex,
  type GuestOffset,
  type HostOffset,
  after,
  asHostOffset,
} from '../layout/geometry.js';
import { CopyOnWrite, type Placement, isKnownZero } from './copy-on-write.js';
import type { QueueContext, RemovedClusters } from './queue-context.js';
import { freshReadZero, intoLimbo, takeClusters } from './queue-context.js';
import { type Claim, beginClaim, endClaim, inWritableSlice, unclaimed } from './slice-section.js';
import { ClusterKind } from '../layout/l2-entry.js';
import { Run, RunKind } from '../layout/plan.js';
import { type Reader, corruptEntry, nowhere } from './reader.js';
import { refusedRemoval, removedByEntry } from './freed-clusters.js';

/** Consecutive claimed guest clusters on their way to being written and linked. */
interface Allocation extends Claim, Placement {
  /** Whether the host clusters, before the write, read as the guest clusters do: as zeroes. */
  readonly showsNothing: boolean;
  /** Whether the host clusters were taken from the arena for this. */
  readonly fresh: boolean;
  /** Mask of subclusters to mark as written per cluster, or undefined for whole clusters. */
  readonly subclusters: ((cluster: number) => number) | undefined;
}

/** A part of a buffer that is written. */
interface Source {
  readonly buffer: Uint8Array;
  /** Bytes that the buffer had when the write began. */
  readonly whole: number;
  readonly from: number;
  readonly length: number;
}

/** One step that has been planned: how many bytes it covers and what it does. */
type Step =
  | { readonly kind: 'in-place'; readonly length: number; readonly hostOffset: HostOffset }
  | { readonly kind: 'allocate'; readonly length: number; readonly allocation: Allocation }
  | { readonly kind: 'refill-arena'; readonly wanted: number };

type PlannedStep = Extract<Step, { readonly length: number }>;

/** One queue's writes. */
export class Writer {
  readonly #context: QueueContext;
  readonly #copyOnWrite: CopyOnWrite;
  readonly #run = new Run();

  constructor(context: QueueContext, reader: Reader) {
    this.#context = context;
    this.#copyOnWrite = new CopyOnWrite(context, reader);
  }

  /**
   * Finds where a range can be written in place as one piece, if its slice is cached; neither waits
   * nor allocates.
   *
   * @returns the host offset, or `nowhere` if `write` has to do it
   */
  locate(offset: GuestOffset, length: number): HostOffset {
    const { metadata, externalData } = this.#context;
    const { geometry, l2Cache, overlap } = metadata;
    if (!metadata.ownsTable(Math.floor(offset / geometry.tableReach))) return nowhere;
    const key = metadata.sliceKey(offset);
    const slot = l2Cache.find(key);
    if (slot < 0) return nowhere;
    this.#context.counters.add(Counter.cacheHits);
    l2Cache.lockShared(slot);
    const hostOffset = l2Cache.holds(slot, key)
      ? this.#locateInSlot(slot, offset, length)
      : nowhere;
    l2Cache.unlockShared(slot);
    if (hostOffset >= 0 && !externalData && overlap.mayHit(hostOffset, length)) return nowhere;
    return hostOffset;
  }

  /**
   * Writes the whole buffer at a guest offset.
   *
   * @param turn in which clusters are taken; it ends when they are, before the data are written
   */
  async write(
    buffer: Uint8Array,
    offset: GuestOffset,
    turn: Turn | undefined = this.#context.turns?.take(() => `the write at guest offset ${offset}`),
  ): Promise<void> {
    const { length } = buffer;
    const steps: Promise<void>[] = [];
    try {
      if (turn !== undefined) await turn.begins;
      let follows: ClusterIndex | undefined;
      for (let done = 0; done < length;) {
        const from = after(offset, done);
        const step = await this.#next(from, length - done, follows);
        follows = this.#behind(step);
        assert(step.length > 0, 'a step of a write writes nothing');
        const source = { buffer, whole: length, from: done, length: step.length };
        const work =
          step.kind === 'in-place'
            ? this.#context.payload.write(this.#bytesOf(source), from, step.hostOffset)
            : this.#allocate(step.allocation, source, from);
        steps.push(work);
        done += step.length;
        // Its failure is met below; until then, while others are planned, it must not go unhandled.
        if (done < length) work.catch(() => undefined);
      }
    } finally {
      turn?.end();
      // Also after a failure no step may go on from a buffer that the caller has back.
      await Promise.allSettled(steps);
    }
    await Promise.all(steps);
    this.#context.unflushed.note();
  }

  /** Plans the next step, waiting for whatever stands in its way. */
  async #next(
    offset: GuestOffset,
    length: number,
    follows: ClusterIndex | undefined,
  ): Promise<PlannedStep> {
    for (;;) {
      const step = await inWritableSlice(this.#context, offset, (slot, entry) =>
        this.#plan(slot, entry, offset, length),
      );
      if (step.kind !== 'refill-arena') return step;
      await this.#context.arena.refill(step.wanted, follows);
    }
  }

  /** The cluster behind those that a step writes to. */
  #behind(step: PlannedStep): ClusterIndex {
    const { geometry } = this.#context.metadata;
    if (step.kind === 'in-place') {
      return after(geometry.clusterAt(after(step.hostOffset, step.length - 1)), 1);
    }
    return after(geometry.clusterAt(step.allocation.hostOffset), step.allocation.count);
  }

  /** Decides on a step and claims what it allocates; undefined where the first cluster is claimed. */
  #plan(slot: number, entry: number, offset: GuestOffset, length: number): Step | undefined {
    const { metadata, externalData } = this.#context;
    const { geometry, entries, claims, l2Cache, overlap } = metadata;
    if (claims.has(slot, entry)) return undefined;
    const inPlace = this.#inPlaceLength(slot, offset, length);
    if (this.#run.kind === RunKind.corrupt) throw corruptEntry(this.#context, offset);
    const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    if (inPlace > 0) {
      const hostOffset = after(entries.hostOffset(l2Cache.view, at), geometry.within(offset));
      if (!externalData) overlap.check(hostOffset, inPlace, 'a write');
      return { kind: 'in-place', length: inPlace, hostOffset };
    }
    return this.#isReplaced(at)
      ? this.#planFresh(slot, entry, offset, length)
      : this.#planKept(slot, entry, at, offset, length);
  }

  /** Plans the allocation of new host clusters for as many clusters as need them. */
  #planFresh(slot: number, entry: number, offset: GuestOffset, length: number): Step {
    const { metadata, arena, externalData } = this.#context;
    const { geometry, claims, l2Cache } = metadata;
    const { clusterSize } = geometry;
    const within = geometry.within(offset);
    const touched = geometry.clusters(within + length);
    const wanted = Math.min(touched, geometry.l2EntriesPerSlice - entry);
    const needsMore = !externalData && arena.available === 0;
    const available = externalData || needsMore ? wanted : Math.min(wanted, arena.available);
    const first = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
    const refusal = refusedRemoval(this.#context, first);
    if (refusal !== undefined) throw refusal;
    if (needsMore && arena.reservesAhead) return { kind: 'refill-arena', wanted: touched };
    const whole = this.#needsWholeCluster(first);
    const guestOffset = after(offset, -within);
    let showedZeroes = isKnownZero(this.#context, first, guestOffset);
    let count = 1;
    while (
      count < available &&
      !claims.has(slot, entry + count) &&
      this.#isReplaced(first + count * geometry.l2EntrySize) &&
      this.#needsWholeCluster(first + count * geometry.l2EntrySize) === whole &&
      refusedRemoval(this.#context, first + count * geometry.l2EntrySize) === undefined
    ) {
      const at = first + count * geometry.l2EntrySize;
      showedZeroes &&= isKnownZero(this.#context, at, after(guestOffset, count * clusterSize));
      count++;
    }
    if (needsMore) return { kind: 'refill-arena', wanted: count };
    const stepLength = Math.min(length, count * clusterSize - within);
    const knownZero = !externalData && freshReadZero(this.#context);
    // In an external data file they lie where the guest sees them.
    const hostOffset = externalData
      ? asHostOffset(guestOffset)
      : takeClusters(this.#context, count);
    this.#context.counters.add(Counter.allocatedClusters, count);
    const granule = whole ? clusterSize : geometry.subclusterSize;
    const last = first + (count - 1) * geometry.l2EntrySize;
    return this.#claimed(stepLength, {
      slot,
      entry,
      count,
      holder: unclaimed,
      hostOffset,
      knownZero,
      showsNothing: knownZero && showedZeroes,
      fresh: !externalData,
      guestOffset,
      edges: this.#copyOnWrite.edgesOfNew(first, last, offset, stepLength, granule),
      subclusters: whole ? undefined : this.#touchedSubclusters(within, stepLength),
    });
  }

  /** Plans writing into a host cluster the entry has already, but whose content is not all valid. */
  #planKept(slot: number, entry: number, at: number, offset: GuestOffset, length: number): Step {
    const { geometry, entries, l2Cache, overlap } = this.#context.metadata;
    const { clusterSize } = geometry;
    const hostOffset = entries.hostOffset(l2Cache.view, at);
    if (!this.#context.externalData) overlap.check(hostOffset, clusterSize, 'a write');
    const within = geometry.within(offset);
    const stepLength = Math.min(length, clusterSize - within);
    return this.#claimed(stepLength, {
      slot,
      entry,
      count: 1,
      holder: unclaimed,
      hostOffset,
      knownZero: false,
      showsNothing: false,
      fresh: false,
      guestOffset: after(offset, -within),
      edges: this.#copyOnWrite.edgesOfKept(at, offset, stepLength),
      subclusters: geometry.extendedL2 ? this.#touchedSubclusters(within, stepLength) : undefined,
    });
  }

  #claimed(length: number, allocation: Allocation): Step {
    beginClaim(this.#context, allocation);
    return { kind: 'allocate', length, allocation };
  }

  /**
   * The bytes of a part of what is written, to be handed on without a wait.
   *
   * @throws ERR_COWHERD_INVALID_ARGUMENT if their memory was given away: there are none any more
   */
  #bytesOf({ buffer, whole, from, length }: Source): Uint8Array {
    if (buffer.length === whole) {
      return length === whole ? buffer : buffer.subarray(from, from + length);
    }
    throw givenAway(this.#context.file.filename);
  }

  async #allocate(allocation: Allocation, source: Source, offset: GuestOffset): Promise<void> {
    const { geometry, flushOrder } = this.#context.metadata;
    const removed: RemovedClusters[] = [];
    try {
      await this.#copyOnWrite.write(allocation, offset, source.length, () => this.#bytesOf(source));
    } catch (error) {
      if (allocation.fresh) {
        const cluster = geometry.clusterAt(allocation.hostOffset);
        intoLimbo(this.#context, [{ cluster, count: allocation.count }], false);
      }
      endClaim(this.#context, allocation);
      throw error;
    }
    if (!allocation.showsNothing) flushOrder.noteBeforeEntries();
    endClaim(this.#context, allocation, () => {
      this.#link(allocation, removed);
    });
    intoLimbo(this.#context, removed, false);
  }

  /** Points the entries at their written clusters. @param removed gets what they pointed at before */
  #link(allocation: Allocation, removed: RemovedClusters[]): void {
    const { geometry, entries, l2Cache } = this.#context.metadata;
    const { slot, entry, count, subclusters, fresh } = allocation;
    const { view } = l2Cache;
    for (let index = 0; index < count; index++) {
      const at = slot * l2Cache.sliceSize + (entry + index) * geometry.l2EntrySize;
      const hostOffset = after(allocation.hostOffset, index * geometry.clusterSize);
      if (fresh) removedByEntry(this.#context, at, removed);
      if (subclusters === undefined) entries.setNormal(view, at, hostOffset);
      else entries.setSubclusters(view, at, hostOffset, subclusters(index));
    }
  }

  /** Bytes from `offset` that can be written in place: own, whole, unclaimed, contiguous clusters. */
  #inPlaceLength(slot: number, offset: GuestOffset, length: number): number {
    const { metadata } = this.#context;
    const { geometry, entries, claims, l2Cache, planner } = metadata;
    const { view } = l2Cache;
    const run = this.#run;
    planner.plan(view, slot * l2Cache.sliceSize, offset, length, run);
    if (run.kind === RunKind.data) {
      const { clusterSize } = geometry;
      let entry = geometry.entryInSlice(offset);
      let own = 0;
      for (let reach = clusterSize - geometry.within(offset); own < run.length; entry++) {
        const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
        if (!entries.isCopied(view, at) || claims.has(slot, entry)) break;
        own = Math.min(reach, run.length);
        reach += clusterSize;
      }
      return own;
    }
    return 0;
  }

  #locateInSlot(slot: number, offset: GuestOffset, length: number): HostOffset {
    const isWhole = this.#inPlaceLength(slot, offset, length) >= length;
    return isWhole && this.#run.kind === RunKind.data ? this.#run.hostOffset : nowhere;
  }

  /** Whether a write gives the cluster a new host cluster: it has none, or shares it. */
  #isReplaced(at: number): boolean {
    const { entries, l2Cache } = this.#context.metadata;
    const kind = entries.kind(l2Cache.view, at);
    if (kind === ClusterKind.zeroAllocated || kind === ClusterKind.normal) {
      return !entries.isCopied(l2Cache.view, at);
    }
    return true;
  }

  /** Whether a cluster, once replaced, must be written whole rather than by subclusters. */
  #needsWholeCluster(at: number): boolean {
    const { geometry, entries, l2Cache } = this.#context.metadata;
    if (!geometry.extendedL2) return true;
    return entries.kind(l2Cache.view, at) !== ClusterKind.unallocated;
  }

  #touchedSubclusters(within: number, length: number): (cluster: number) => number {
    const { entries, geometry } = this.#context.metadata;
    const { clusterSize } = geometry;
    return (cluster) => {
      const start = Math.max(within, cluster * clusterSize);
      const end = Math.min(within + length, (cluster + 1) * clusterSize);
      return entries.subclusterMask(start - cluster * clusterSize, end - start);
    };
  }
}
