/**
 * Work queues of slices: requests that must wait for an event of one slice. First in, first out,
 * all woken once per event; whoever wakes plans again from what the tables then say.
 */

/** The waiting requests of one thread, by slot. */
export class SliceWorkQueues {
  readonly #waiting = new Map<number, (() => void)[]>();

  /** Resolves at the next `wake` of the slot. */
  wait(slot: number): Promise<void> {
    return new Promise((resolve) => {
      const queue = this.#waiting.get(slot);
      if (queue === undefined) this.#waiting.set(slot, [resolve]);
      else queue.push(resolve);
    });
  }

  /** Wakes every request that waits for the slot. */
  wake(slot: number): void {
    if (this.#waiting.size === 0) return;
    const queue = this.#waiting.get(slot);
    if (queue === undefined) return;
    this.#waiting.delete(slot);
    for (const resume of queue) resume();
  }
}
