/**
 * A queue's arena: host clusters reserved ahead in contiguous runs, so that taking some needs no
 * lock and sequential guest writes stay sequential on the host.
 */
import assert from 'node:assert/strict';

/** Consecutive host clusters reserved for one queue. */
export interface ReservedRun {
  readonly cluster: number;
  readonly length: number;
  /** Whether the clusters read as zeroes. */
  readonly knownZero: boolean;
}

/** Reserves up to `wanted` consecutive clusters. */
export type Reserve = (wanted: number) => Promise<ReservedRun>;

const firstReservationBytes = 256 * 1024;
const largestReservationBytes = 32 * 1024 * 1024;

/** The clusters one queue may hand out without asking anyone. */
export class Arena {
  readonly #reserve: Reserve;
  readonly #clusterSize: number;
  #next = 0;
  #left = 0;
  #knownZero = false;
  #reservationBytes = firstReservationBytes;
  #spare: ReservedRun[] = [];
  #refill: Promise<void> | undefined;

  constructor(reserve: Reserve, clusterSize: number) {
    this.#reserve = reserve;
    this.#clusterSize = clusterSize;
  }

  /** Consecutive clusters that `take` can give right now. */
  get available(): number {
    return this.#left;
  }

  /** Whether the clusters `take` gives next read as zeroes. */
  get knownZero(): boolean {
    return this.#knownZero;
  }

  /**
   * Takes the next `count` consecutive clusters.
   *
   * @param count from 1 to `available`, as looked up without a wait in between
   * @returns the first one
   */
  take(count: number): number {
    // A mistake of the caller's must not hand out clusters that belong to others.
    assert(count > 0 && count <= this.#left, 'clusters that are not reserved are not handed out');
    const cluster = this.#next;
    this.#next += count;
    this.#left -= count;
    return cluster;
  }

  /**
   * Takes one cluster, reserving more first where none is left.
   *
   * @throws what reserving throws
   */
  async obtain(): Promise<ReservedRun> {
    // Others that waited for the same reservation may have taken all of it.
    while (this.#left === 0) await this.refill();
    const { knownZero } = this;
    return { cluster: this.take(1), length: 1, knownZero };
  }

  /**
   * Makes at least one cluster available; concurrent calls share one reservation.
   *
   * @param wanted clusters the caller is about to take, a hint for the size of the reservation
   * @throws what reserving throws
   */
  async refill(wanted = 1): Promise<void> {
    this.#refill ??= this.#fill(wanted).finally(() => {
      this.#refill = undefined;
    });
    await this.#refill;
  }

  /** Gives clusters back that were taken but not used; they are no longer known to be zero. */
  giveBack(cluster: number, length: number): void {
    this.#spare.push({ cluster, length, knownZero: false });
  }

  /** Empties the arena. @returns every run that was reserved and not used */
  drain(): ReservedRun[] {
    const runs = this.#spare;
    this.#spare = [];
    if (this.#left > 0) {
      runs.push({ cluster: this.#next, length: this.#left, knownZero: this.#knownZero });
      this.#left = 0;
    }
    return runs;
  }

  async #fill(wanted: number): Promise<void> {
    if (this.#left > 0) return;
    const run = this.#spare.pop() ?? (await this.#reserve(this.#nextReservation(wanted)));
    this.#next = run.cluster;
    this.#left = run.length;
    this.#knownZero = run.knownZero;
  }

  #nextReservation(wanted: number): number {
    const clusters = Math.max(4, Math.floor(this.#reservationBytes / this.#clusterSize));
    this.#reservationBytes = Math.min(this.#reservationBytes * 2, largestReservationBytes);
    return Math.max(clusters, Math.min(wanted, largestReservationBytes / this.#clusterSize));
  }
}
