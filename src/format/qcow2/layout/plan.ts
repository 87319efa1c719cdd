/**
 * Planning: what a stretch of the virtual disk is made of, from the entries of one L2 slice.
 * Plans are plain data; nothing here does I/O, waits, or changes a table.
 */
import { maxOffset } from '../../../limits.js';
import { type Geometry, type GuestOffset, after, asHostOffset } from './geometry.js';
import { ClusterKind, type L2EntryView } from './l2-entry.js';

/** How a run is stored. */
export const RunKind = {
  /** Not in this image: reads come from the backing file, or as zeroes. */
  unallocated: 0,
  /** Reads as zeroes. */
  zero: 1,
  /** Stored as it is at `hostOffset`. */
  data: 2,
  /** Part of one compressed cluster, whose data begin at `hostOffset`. */
  compressed: 3,
  /** The table contradicts itself or the format. */
  corrupt: 4,
} as const;

export type RunKind = (typeof RunKind)[keyof typeof RunKind];

/** A run of guest bytes that are stored alike; reused by its owner to keep planning free of garbage. */
export class Run {
  kind: RunKind = RunKind.unallocated;
  /** Bytes. */
  length = 0;
  /** Host offset in bytes of the run's first byte; of the data's begin for a compressed run. */
  hostOffset = asHostOffset(0);
  /**
   * Whether `hostOffset` means something: for data, and for zeroes and unallocated subclusters that
   * have a place in a host cluster.
   */
  hasHost = false;
  /** Bytes that may hold a compressed cluster's data. */
  compressedSize = 0;
}

/** Plans reads from the entries of cached slices. */
export class ReadPlanner {
  readonly #geometry: Geometry;
  readonly #entries: L2EntryView;

  constructor(geometry: Geometry, entries: L2EntryView) {
    this.#geometry = geometry;
    this.#entries = entries;
  }

  /**
   * Finds how the bytes from a guest offset on are stored.
   *
   * @param view table bytes
   * @param sliceStart position in `view` of the slice that maps the guest offset
   * @param guestOffset in bytes
   * @param maxLength bytes to look ahead, at least 1; the run also ends with the slice
   * @param run receives the result
   */
  plan(
    view: DataView,
    sliceStart: number,
    guestOffset: GuestOffset,
    maxLength: number,
    run: Run,
  ): void {
    const geometry = this.#geometry;
    const within = geometry.within(guestOffset);
    const index = geometry.entryInSlice(guestOffset);
    const reach = (geometry.l2EntriesPerSlice - index) * geometry.clusterSize - within;
    const length = Math.min(maxLength, reach);
    if (geometry.extendedL2) this.#planExtended(view, sliceStart, index, within, length, run);
    else this.#planStandard(view, sliceStart, index, within, length, run);
  }

  #planStandard(
    view: DataView,
    sliceStart: number,
    index: number,
    within: number,
    maxLength: number,
    run: Run,
  ): void {
    const { clusterSize } = this.#geometry;
    const entries = this.#entries;
    const at = sliceStart + index * 8;
    const kind = entries.kind(view, at);
    if (kind === ClusterKind.compressed) {
      this.#planCompressed(view, at, within, maxLength, run);
      return;
    }
    run.hasHost = kind >= ClusterKind.zeroAllocated;
    run.hostOffset = run.hasHost ? after(entries.hostOffset(view, at), within) : asHostOffset(0);
    run.kind = runKindOf[kind];
    if (run.hasHost && !this.#geometry.canHoldCluster(after(run.hostOffset, -within))) {
      run.kind = RunKind.corrupt;
    }
    let length = clusterSize - within;
    for (let next = at + 8; length < maxLength; next += 8, length += clusterSize) {
      if (entries.kind(view, next) !== kind) break;
      if (run.hasHost && entries.hostOffset(view, next) !== run.hostOffset + length) break;
    }
    run.length = Math.min(length, maxLength);
  }

  #planExtended(
    view: DataView,
    sliceStart: number,
    index: number,
    within: number,
    maxLength: number,
    run: Run,
  ): void {
    const geometry = this.#geometry;
    const { subclusterSize } = geometry;
    let at = sliceStart + index * 16;
    if (this.#entries.kind(view, at) === ClusterKind.compressed) {
      this.#planCompressed(view, at, within, maxLength, run);
      return;
    }
    let subcluster = Math.floor(within / subclusterSize);
    this.#subcluster(view, at, subcluster, run);
    if (run.hasHost) run.hostOffset = after(run.hostOffset, within);
    const { kind, hasHost, hostOffset } = run;
    let length = subclusterSize - (within % subclusterSize);
    while (length < maxLength) {
      subcluster++;
      if (subcluster === 32) {
        subcluster = 0;
        at += 16;
        if (this.#entries.kind(view, at) === ClusterKind.compressed) break;
      }
      this.#subcluster(view, at, subcluster, run);
      if (run.kind !== kind || run.hasHost !== hasHost) break;
      if (hasHost && run.hostOffset + subcluster * subclusterSize !== hostOffset + length) break;
      length += subclusterSize;
    }
    run.kind = kind;
    run.hasHost = hasHost;
    run.hostOffset = hostOffset;
    run.length = Math.min(length, maxLength);
    if (hasHost && !geometry.canHoldCluster(after(hostOffset, -within))) run.kind = RunKind.corrupt;
  }

  /** State of one subcluster; `run.hostOffset` becomes the offset of its host cluster. */
  #subcluster(view: DataView, at: number, subcluster: number, run: Run): void {
    const entries = this.#entries;
    const allocated = (entries.allocatedBits(view, at) >>> subcluster) & 1;
    const zero = (entries.zeroBits(view, at) >>> subcluster) & 1;
    const normal = entries.kind(view, at) === ClusterKind.normal;
    if ((allocated & zero) !== 0 || (allocated !== 0 && !normal)) run.kind = RunKind.corrupt;
    else if (zero !== 0) run.kind = RunKind.zero;
    else run.kind = allocated !== 0 ? RunKind.data : RunKind.unallocated;
    run.hasHost = normal;
    run.hostOffset = run.hasHost ? entries.hostOffset(view, at) : asHostOffset(0);
  }

  #planCompressed(view: DataView, at: number, within: number, maxLength: number, run: Run): void {
    run.hostOffset = this.#entries.compressedOffset(view, at);
    run.hasHost = true;
    run.compressedSize = this.#entries.compressedSize(view, at);
    const isExact = run.hostOffset <= maxOffset - run.compressedSize;
    run.kind = isExact ? RunKind.compressed : RunKind.corrupt;
    run.length = Math.min(this.#geometry.clusterSize - within, maxLength);
  }
}

const runKindOf = [RunKind.unallocated, RunKind.zero, RunKind.zero, RunKind.data] as const;
