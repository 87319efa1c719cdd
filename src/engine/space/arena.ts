/**
 * A queue's arena: a run of host clusters reserved ahead, so that taking some needs no lock and
 * sequential guest writes stay sequential on the host. What is left of the run stands in the queue's
 * line of the control block: while no queue runs a request, others may count it, or take it away.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../words/atomic-memory.js';
import { ControlWord, QueueWord, queueWord } from '../words/control-block.js';
import {
  type ReservedClusters,
  publishReserved,
  queuesInUse,
  reservedRest,
} from '../queues/queue-line.js';

/** Consecutive host clusters reserved for one queue. */
export interface ReservedRun extends ReservedClusters {
  /** Whether the clusters read as zeroes. */
  readonly knownZero: boolean;
}

/** Reserves up to `wanted` consecutive clusters, behind others if they can lie there. */
export type Reserve = (wanted: number, follows: number | undefined) => Promise<ReservedRun>;

const firstReservationBytes = 256 * 1024;
const largestReservationBytes = 32 * 1024 * 1024;
/** Of clusters that are sure to be used: what ext4 puts into one extent. */
const largestExpectedBytes = 128 * 1024 * 1024;
/** All arenas together hold at most this part of the disk in reserve. */
const shareOfDisk = 1 / 32;

/** What an arena is made with. */
export interface ArenaOptions {
  /** The words of the control block. */
  readonly memory: AtomicMemory;
  /** The queue's line there. */
  readonly line: number;
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  /** Virtual size in bytes. */
  readonly diskSize: number;
  readonly reserve: Reserve;
  /** Whether more clusters are reserved than are about to be taken; true if left out. */
  readonly reservesAhead?: boolean | undefined;
}

/** The clusters one queue may hand out without asking anyone. */
export class Arena {
  readonly #options: ArenaOptions;
  readonly #memory: AtomicMemory;
  readonly #taken: number;
  #first = 0;
  #length = 0;
  #knownZero = false;
  #reservationBytes = firstReservationBytes;
  /** Clusters that are sure to be used, as far as that was said. */
  #expected = 0;
  #refill: Promise<void> | undefined;

  constructor(options: ArenaOptions) {
    this.#options = options;
    this.#memory = options.memory;
    this.#taken = queueWord(options.line, QueueWord.reservedTaken);
  }

  /** Consecutive clusters that `take` can give right now. */
  get available(): number {
    return this.#length - this.#memory.load(this.#taken);
  }

  /** Whether the clusters `take` gives next read as zeroes. */
  get knownZero(): boolean {
    return this.#knownZero;
  }

  /** Whether more clusters are reserved than are about to be taken. */
  get reservesAhead(): boolean {
    return this.#options.reservesAhead ?? true;
  }

  /**
   * Has at least so many clusters reserved at a time from now on, since they are sure to be taken one
   * after the other.
   */
  expect(clusters: number): void {
    const most = largestExpectedBytes / this.#options.clusterSize;
    this.#expected = Math.max(this.#expected, Math.min(clusters, most));
  }

  /**
   * Takes the next `count` consecutive clusters.
   *
   * @param count from 1 to `available`, as looked up without a wait in between
   * @returns the first one
   */
  take(count: number): number {
    const taken = this.#memory.load(this.#taken);
    // A mistake of the caller's must not hand out clusters that belong to others.
    assert(count > 0 && taken + count <= this.#length, 'clusters that are not reserved');
    this.#memory.store(this.#taken, taken + count);
    return this.#first + taken;
  }

  /**
   * Gives back clusters that were taken last, or that lie in front of what `take` gives next.
   *
   * @param run as it was taken, of this reservation or one before
   * @returns whether they are here again; others may have been taken since
   */
  giveBack({ cluster, length, knownZero }: ReservedRun): boolean {
    const { memory, line } = this.#options;
    const taken = this.#memory.load(this.#taken);
    if (this.#first + taken !== cluster + length || this.#refill !== undefined) return false;
    if (taken >= length) {
      this.#memory.store(this.#taken, taken - length);
      return true;
    }
    this.#first = cluster;
    this.#length += length - taken;
    this.#knownZero &&= knownZero;
    publishReserved(memory, line, { cluster, length: this.#length });
    return true;
  }

  /**
   * Takes one cluster, reserving more first where none is left.
   *
   * @throws what reserving throws
   */
  async obtain(): Promise<ReservedRun> {
    // Others that waited for the same reservation may have taken all of it.
    while (this.available === 0) await this.refill();
    const { knownZero } = this;
    return { cluster: this.take(1), length: 1, knownZero };
  }

  /**
   * Makes at least one cluster available; concurrent calls share one reservation.
   *
   * @param wanted clusters the caller is about to take, a hint for the size of the reservation
   * @param follows the cluster behind those that the caller has got last, a hint for their place
   * @throws what reserving throws
   */
  async refill(wanted = 1, follows?: number): Promise<void> {
    if (this.#refill !== undefined) {
      // Whoever reserves waits for the mutex of the counts, or holds it.
      await (this.#memory.watch?.(ControlWord.refcountMutex, this.#refill) ?? this.#refill);
      return;
    }
    this.#refill = this.#fill(wanted, follows).finally(() => {
      this.#refill = undefined;
    });
    await this.#refill;
  }

  /** Empties the arena. @returns what was reserved and not used */
  drain(): ReservedClusters | undefined {
    const { memory, line } = this.#options;
    const rest = reservedRest(memory, line);
    memory.store(this.#taken, this.#length);
    return rest;
  }

  async #fill(wanted: number, follows: number | undefined): Promise<void> {
    if (this.available > 0) return;
    const { memory, line, reserve } = this.#options;
    const run = await reserve(this.#nextReservation(wanted), follows);
    assert(run.length > 0, 'nothing is reserved');
    assert(this.available === 0, 'clusters that are reserved would be forgotten');
    this.#first = run.cluster;
    this.#length = run.length;
    this.#knownZero = run.knownZero;
    publishReserved(memory, line, run);
  }

  /** Clusters to reserve: twice as many each time, up to this queue's share of the disk. */
  #nextReservation(wanted: number): number {
    const { memory, clusterSize, diskSize } = this.#options;
    if (!this.reservesAhead) return wanted;
    const share = (diskSize * shareOfDisk) / queuesInUse(memory);
    const most = Math.min(largestReservationBytes, share);
    const clusters = Math.floor(Math.min(this.#reservationBytes, most) / clusterSize);
    this.#reservationBytes = Math.min(this.#reservationBytes * 2, largestReservationBytes);
    const sure = Math.max(this.#expected, Math.min(wanted, largestReservationBytes / clusterSize));
    return Math.max(1, clusters, sure);
  }
}
