/**
 * Executing write-zeroes and discard: changes of L2 entries alone, for whole clusters (or whole
 * subclusters); what remains at the edges is written as data.
 */
import { type GuestOffset, after, asGuestOffset, asHostOffset } from '../layout/geometry.js';
import type { QueueContext, RemovedClusters } from './queue-context.js';
import { hasBelow, intoLimbo, nothingBelow } from './queue-context.js';
import { type Claim, beginClaim, endClaim, inWritableSlice, unclaimed } from './slice-section.js';
import { ClusterKind } from '../layout/l2-entry.js';
import { Run, RunKind } from '../layout/plan.js';
import type { Reader } from './reader.js';
import { refusedRemoval, removedByEntry } from './freed-clusters.js';
import type { Writer } from './writer.js';

/** Bytes of zeroes that are enciphered at once. */
const encipheredBytes = 1024 * 1024;

/** What happens to each cluster of a range. */
export interface ZeroMode {
  /** Whether host clusters are given up. */
  readonly unmap: boolean;
  /** Whether the host is told about clusters that are given up. */
  readonly punch: boolean;
  /** Whether a cluster that is not in this image may stay so, although data below would show. */
  readonly discard: boolean;
  /** Whether clusters are no longer in this image at all, whatever then shows. */
  readonly forget?: boolean;
}

/** One queue's write-zeroes and discards. */
export class Zeroing {
  readonly #context: QueueContext;
  readonly #reader: Reader;
  readonly #writer: Writer;

  constructor(context: QueueContext, reader: Reader, writer: Writer) {
    this.#context = context;
    this.#reader = reader;
    this.#writer = writer;
  }

  /** Makes a guest range read as zeroes. */
  async writeZeroes(offset: GuestOffset, length: number, unmap: boolean): Promise<void> {
    const { rawExternalData, metadata } = this.#context;
    const { clusterSize, subclusterSize } = metadata.geometry;
    if (rawExternalData) {
      // The entries stay: what is written meanwhile must show in the raw file and through them alike.
      await this.#zeroInFile(offset, length, unmap);
      return;
    }
    const end = after(offset, length);
    const start = asGuestOffset(Math.min(end, Math.ceil(offset / subclusterSize) * subclusterSize));
    const atEnd = end === metadata.diskSize;
    const stop = asGuestOffset(Math.max(start, atEnd ? end : end - (end % subclusterSize)));
    await this.#zeroEdge(offset, start - offset, unmap);
    await this.#zeroEdge(stop, end - stop, unmap);
    const firstCluster = asGuestOffset(
      Math.min(stop, Math.ceil(start / clusterSize) * clusterSize),
    );
    const lastCluster = asGuestOffset(
      Math.max(firstCluster, atEnd ? stop : stop - (stop % clusterSize)),
    );
    if (firstCluster > start) await this.#zeroSubclusters(start, firstCluster - start);
    await this.#changeClusters(firstCluster, lastCluster - firstCluster, {
      unmap,
      punch: unmap,
      discard: false,
    });
    if (stop > lastCluster) await this.#zeroSubclusters(lastCluster, stop - lastCluster);
  }

  /** Gives up the host clusters of every whole cluster in a guest range. */
  async discard(offset: GuestOffset, length: number): Promise<void> {
    const { rawExternalData, version, metadata } = this.#context;
    const { clusterSize } = metadata.geometry;
    // Without zero clusters, giving up a cluster would expose what the backing file holds.
    if (version === 2 && hasBelow(this.#context)) return;
    const end = offset + length;
    const start = asGuestOffset(Math.ceil(offset / clusterSize) * clusterSize);
    const stop = end === metadata.diskSize ? end : end - (end % clusterSize);
    if (stop <= start) return;
    if (rawExternalData) {
      await this.#zeroInFile(start, stop - start, true);
      return;
    }
    await this.#changeClusters(start, stop - start, { unmap: true, punch: true, discard: true });
  }

  /** Gives up every cluster from an offset on: they are not in this image any more. */
  async forget(offset: GuestOffset, length: number): Promise<void> {
    const mode = { unmap: true, punch: !this.#context.externalData, discard: true, forget: true };
    await this.#changeClusters(offset, length, mode);
  }

  /** Zeroes a range of an external data file that holds the disk as it is. */
  async #zeroInFile(offset: GuestOffset, length: number, unmap: boolean): Promise<void> {
    const { payload, unflushed } = this.#context;
    if (payload.isPlain) {
      await payload.writeZeroes(asHostOffset(offset), length, unmap);
      unflushed.note();
      return;
    }
    const zeroes = new Uint8Array(Math.min(length, encipheredBytes));
    for (let done = 0; done < length; done += zeroes.length) {
      const part = zeroes.subarray(0, Math.min(zeroes.length, length - done));
      await this.#writer.write(part, after(offset, done));
    }
  }

  /**
   * Zeroes less than one (sub)cluster: as a whole, where the rest reads as zeroes already, or as data.
   * So does QEMU.
   */
  async #zeroEdge(offset: GuestOffset, length: number, unmap: boolean): Promise<void> {
    if (length <= 0) return;
    const isDone =
      this.#context.version === 2
        ? await this.#isNothing(offset, length)
        : await this.#zeroAround(offset, length, unmap);
    if (!isDone) await this.#writer.write(new Uint8Array(length), offset);
  }

  /** Whether a part of one cluster is neither in this image nor below it. */
  async #isNothing(offset: GuestOffset, length: number): Promise<boolean> {
    const run = new Run();
    await this.#reader.plan(offset, length, run);
    return run.kind === RunKind.unallocated && nothingBelow(this.#context, offset);
  }

  /** Zeroes the (sub)cluster around a part of it. @returns whether the rest reads as zeroes, as it has to */
  async #zeroAround(offset: GuestOffset, length: number, unmap: boolean): Promise<boolean> {
    const { metadata, externalData } = this.#context;
    const { geometry, planner, entries, l2Cache } = metadata;
    const start = after(offset, -(offset % geometry.subclusterSize));
    const whole = Math.min(geometry.subclusterSize, metadata.diskSize - start);
    const run = new Run();
    await this.#reader.plan(start, whole, run);
    const isFromBelow = run.kind === RunKind.unallocated;
    if (!isFromBelow && run.kind !== RunKind.zero) return false;
    if (isFromBelow && !(await this.#restIsZeroBelow(start, whole, offset, length))) return false;
    // What is given up in a data file would have to be claimed first.
    const mode = { unmap: unmap && !externalData, punch: unmap, discard: false };
    const mask = entries.subclusterMask(geometry.within(start), geometry.subclusterSize);
    const removed: RemovedClusters[] = [];
    let isZero = false;
    await this.#inSlice(start, 1, (at) => {
      const slice = at - geometry.entryInSlice(start) * geometry.l2EntrySize;
      planner.plan(l2Cache.view, slice, start, whole, run);
      isZero = run.kind === RunKind.zero || (isFromBelow && run.kind === RunKind.unallocated);
      if (!isZero) return false;
      if (!geometry.extendedL2) {
        return this.#changeEntry(at, entries.kind(l2Cache.view, at), mode, removed);
      }
      entries.setZeroSubclusters(l2Cache.view, at, mask);
      return true;
    });
    intoLimbo(this.#context, removed, mode.punch);
    return isZero;
  }

  /** Whether what is below is known to read as zeroes on both sides of a part of a (sub)cluster. */
  async #restIsZeroBelow(
    start: GuestOffset,
    whole: number,
    offset: GuestOffset,
    length: number,
  ): Promise<boolean> {
    const end = after(offset, length);
    return (
      (await this.#isZeroBelow(start, offset - start)) &&
      (await this.#isZeroBelow(end, start + whole - end))
    );
  }

  async #isZeroBelow(offset: GuestOffset, length: number): Promise<boolean> {
    const { backing } = this.#context;
    const shown = Math.min(length, (backing?.size ?? 0) - offset);
    return backing === undefined || shown <= 0 || (await backing.isKnownZero(offset, shown));
  }

  /** Zeroes whole subclusters of one cluster. */
  async #zeroSubclusters(offset: GuestOffset, length: number): Promise<void> {
    const { geometry, entries, l2Cache } = this.#context.metadata;
    const within = geometry.within(offset);
    const mask = entries.subclusterMask(within, length);
    // Compressed clusters have no subclusters.
    const compressed: number[] = [];
    await this.#inSlice(offset, 1, (at) => {
      const isCompressed = entries.kind(l2Cache.view, at) === ClusterKind.compressed;
      if (isCompressed) compressed.push(at);
      else entries.setZeroSubclusters(l2Cache.view, at, mask);
      return !isCompressed;
    });
    if (compressed.length > 0) await this.#writer.write(new Uint8Array(length), offset);
  }

  async #changeClusters(offset: GuestOffset, length: number, mode: ZeroMode): Promise<void> {
    const { metadata, version } = this.#context;
    const { geometry } = metadata;
    const end = offset + length;
    for (let next = offset; next < end;) {
      const count = geometry.clusters(end - next);
      const isNowhere = mode.forget === true || !hasBelow(this.#context);
      if (mode.discard && !metadata.hasTable(next) && isNowhere) {
        next = after(next, geometry.tableReach - (next % geometry.tableReach));
      } else if (version === 2 && !mode.discard && !nothingBelow(this.#context, next)) {
        const part = Math.min(end - next, geometry.clusterSize);
        await this.#zeroEdge(next, part, false);
        next = after(next, part);
      } else {
        const changed = await this.#changeInSlice(next, count, mode);
        next = after(next, changed * geometry.clusterSize);
      }
    }
  }

  /** Changes clusters up to the end of a slice or to a claim. @returns how many */
  async #changeInSlice(offset: GuestOffset, count: number, mode: ZeroMode): Promise<number> {
    if (this.#context.externalData && mode.punch) return this.#giveUpData(offset, count, mode);
    const { l2Cache } = this.#context.metadata;
    const removed: RemovedClusters[] = [];
    const changed = await this.#inSlice(offset, count, (at) => {
      const kind = this.#context.metadata.entries.kind(l2Cache.view, at);
      return this.#changeEntry(at, kind, mode, removed);
    });
    intoLimbo(this.#context, removed, mode.punch);
    return changed;
  }

  /**
   * Gives clusters of an external data file back to the host, and changes their entries. They are
   * claimed meanwhile: a write that came after must not be punched away.
   *
   * @returns how many
   */
  async #giveUpData(offset: GuestOffset, count: number, mode: ZeroMode): Promise<number> {
    const { metadata, payload, unflushed } = this.#context;
    const { geometry, l2Cache, claims, entries } = metadata;
    const claim = await inWritableSlice<Claim>(this.#context, offset, (slot, entry) => {
      const most = Math.min(count, geometry.l2EntriesPerSlice - entry);
      let free = 0;
      while (free < most && !claims.has(slot, entry + free)) free++;
      if (free === 0) return undefined;
      const claimed = { slot, entry, count: free, holder: unclaimed };
      beginClaim(this.#context, claimed);
      return claimed;
    });
    const { slot, entry, count: changed } = claim;
    try {
      // Nothing lies beyond the end of a disk that grows, whose clusters there are zeroed first.
      const length = Math.min(changed * geometry.clusterSize, metadata.diskSize - offset);
      if (length > 0) await payload.discard(asHostOffset(offset), length);
    } catch (error) {
      endClaim(this.#context, claim);
      throw error;
    }
    unflushed.note();
    endClaim(this.#context, claim, () => {
      for (let index = entry; index < entry + changed; index++) {
        const at = slot * l2Cache.sliceSize + index * geometry.l2EntrySize;
        this.#changeEntry(at, entries.kind(l2Cache.view, at), mode, []);
      }
    });
    return changed;
  }

  /** @returns whether the entry was changed */
  #changeEntry(at: number, kind: ClusterKind, mode: ZeroMode, removed: RemovedClusters[]): boolean {
    const { metadata, version, externalData } = this.#context;
    const { entries, l2Cache, geometry } = metadata;
    const { view } = l2Cache;
    const hasHost = kind === ClusterKind.normal || kind === ClusterKind.zeroAllocated;
    const keepHost =
      hasHost && (!mode.unmap || externalData) && version === 3 && mode.forget !== true;
    if (
      mode.discard &&
      mode.forget !== true &&
      kind === ClusterKind.unallocated &&
      !hasBelow(this.#context)
    ) {
      return false;
    }
    // Subclusters of one that is not there may be zeroes.
    const isNothing = kind === ClusterKind.unallocated && !geometry.extendedL2;
    if (mode.forget === true && isNothing) return false;
    const alreadyZero =
      mode.forget !== true &&
      !geometry.extendedL2 &&
      (kind === ClusterKind.zeroPlain || (kind === ClusterKind.zeroAllocated && keepHost));
    if (alreadyZero) return false;
    const refusal = keepHost ? undefined : refusedRemoval(this.#context, at);
    if (refusal !== undefined) throw refusal;
    if (version === 2 || mode.forget === true) {
      if (isNothing) return false;
      removedByEntry(this.#context, at, removed);
      entries.clear(view, at);
      return true;
    }
    if (!keepHost) removedByEntry(this.#context, at, removed);
    entries.setZero(view, at, keepHost);
    return true;
  }

  /**
   * Runs `change` on the position of each entry from a guest offset's on, under the slice's word,
   * up to `count` entries, the slice's end, or a claimed entry; waits while the first is claimed.
   *
   * @returns how many entries it was run on
   */
  #inSlice(offset: GuestOffset, count: number, change: (at: number) => boolean): Promise<number> {
    const { geometry, l2Cache, claims, flushOrder } = this.#context.metadata;
    return inWritableSlice(this.#context, offset, (slot, entry) => {
      const last = Math.min(entry + count, geometry.l2EntriesPerSlice);
      let next = entry;
      let dirty = false;
      try {
        for (; next < last && !claims.has(slot, next); next++) {
          const at = slot * l2Cache.sliceSize + next * geometry.l2EntrySize;
          if (change(at)) dirty = true;
        }
      } finally {
        if (dirty) {
          l2Cache.markDirty(slot);
          flushOrder.noteEntries();
        }
      }
      return next === entry ? undefined : next - entry;
    });
  }
}
