/**
 * Work queues of slices: requests that must wait for an event of one slice. First in, first out,
 * all woken once per event; whoever wakes plans again from what the tables then say.
 */
import type { AtomicMemory } from '../words/atomic-memory.js';
import { announceWait, raiseEvent } from '../words/event-word.js';

/** The requests of this thread that wait for one event. */
interface Waiting {
  readonly announced: number;
  readonly woken: Promise<void>;
  readonly wake: () => void;
}

/** One thread's way to the work queues, one for each of a row of event words. */
export class SliceWorkQueues {
  readonly #memory: AtomicMemory;
  readonly #firstWord: number;
  readonly #stride: number;
  readonly #waiting = new Map<number, Waiting>();
  /** Queue `n` uses the word at `firstWord + n * stride`. */
  constructor(memory: AtomicMemory, firstWord: number, stride: number) {
    this.#memory = memory;
    this.#firstWord = firstWord;
    this.#stride = stride;
  }

  /**
   * Says that a request is about to wait: under the lock that guards what it waits for, or before it
   * looks once more whether that is still outstanding.
   *
   * @returns what `wait` takes
   */
  announce(queue: number): number {
    return announceWait(this.#memory, this.#word(queue));
  }

  /** Resolves at the first `wake` of the queue after the announcement, from any thread. */
  wait(queue: number, announced: number): Promise<void> {
    const known = this.#waiting.get(queue);
    if (known?.announced === announced) return known.woken;
    let wake = (): void => undefined;
    const woken = new Promise<void>((resolve, reject) => {
      wake = resolve;
      this.#memory.wait(this.#word(queue), announced).then(() => {
        if (this.#waiting.get(queue) === waiting) this.#waiting.delete(queue);
        resolve();
      }, reject);
    });
    const waiting = { announced, woken, wake };
    this.#waiting.set(queue, waiting);
    return woken;
  }

  /** Wakes every request of any thread that waits in the queue. */
  wake(queue: number): void {
    raiseEvent(this.#memory, this.#word(queue));
    if (this.#waiting.size === 0) return;
    const waiting = this.#waiting.get(queue);
    if (waiting === undefined) return;
    this.#waiting.delete(queue);
    // Sooner than by way of the shared word, which takes a turn of the event loop.
    waiting.wake();
  }

  #word(queue: number): number {
    return this.#firstWord + queue * this.#stride;
  }
}
