/**
 * Limbo: host clusters whose last reference was removed, until they may be handed out again. They
 * pass two gates here, in any order: every request that began before the removal has ended, and the
 * removal is durable. Punching, where wanted, comes after both, and is the caller's.
 */
import { isBefore } from './epochs.js';

/** Consecutive host clusters that lost one reference each. */
export interface LimboEntry {
  readonly cluster: number;
  readonly count: number;
  /** Epoch the removal belongs to. */
  readonly epoch: number;
  /** Flush round whose completion makes the removal durable. */
  readonly round: number;
  /** Whether the host should be told that the clusters are free. */
  readonly punch: boolean;
}

/** The clusters one queue has removed references to. */
export class Limbo {
  #entries: LimboEntry[] = [];
  #clusters = 0;

  /** Clusters waiting. */
  get clusters(): number {
    return this.#clusters;
  }

  add(entry: LimboEntry): void {
    this.#entries.push(entry);
    this.#clusters += entry.count;
  }

  /**
   * Takes out the entries that have passed both gates.
   *
   * @param oldestEpoch the oldest epoch that any request of any queue still runs in
   * @param completedRound the last flush round that is durable
   */
  takeReleasable(oldestEpoch: number, completedRound: number): LimboEntry[] {
    const released: LimboEntry[] = [];
    const kept: LimboEntry[] = [];
    for (const entry of this.#entries) {
      const passed = isBefore(entry.epoch, oldestEpoch) && !isBefore(completedRound, entry.round);
      (passed ? released : kept).push(entry);
    }
    this.#entries = kept;
    for (const entry of released) this.#clusters -= entry.count;
    return released;
  }

  /** Puts an entry back whose release failed. */
  putBack(entry: LimboEntry): void {
    this.add(entry);
  }
}
