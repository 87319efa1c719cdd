/**
 * Who shares which flush round: one leader at a time, and whoever asks while a round runs shares the
 * next one, whichever thread leads that. A round covers what had completed when it began, and may
 * cover what came later, but nobody can tell; so only rounds that begin after a call count for it.
 */
import type { AtomicMemory } from '../words/atomic-memory.js';
import { ControlWord } from '../words/control-block.js';
import { isBefore } from '../queues/epochs.js';
import type { LongMutex } from '../words/long-mutex.js';

/** One thread's way to the rounds of an open image. */
export class FlushRounds {
  readonly #memory: AtomicMemory;
  readonly #mutex: LongMutex;
  readonly #run: () => Promise<void>;
  readonly #onShared: () => void;
  #next: Promise<void> | undefined;
  /** The round that covers everything this thread's callers have completed, or any later one. */
  #wanted = 0;

  /**
   * @param run makes durable whatever has completed before it is called
   * @param onShared called when another thread's round is found to do
   */
  constructor(
    memory: AtomicMemory,
    mutex: LongMutex,
    run: () => Promise<void>,
    onShared: () => void,
  ) {
    this.#memory = memory;
    this.#mutex = mutex;
    this.#run = run;
    this.#onShared = onShared;
  }

  /** Number of the last round begun; what was removed before it is copied is durable after it. */
  get begun(): number {
    return this.#memory.load(ControlWord.roundsBegun);
  }

  /** Number of the last completed round. */
  get completed(): number {
    return this.#memory.load(ControlWord.roundsCompleted);
  }

  /**
   * Resolves once a round that began after this call has completed.
   *
   * @throws what the round throws
   */
  async share(): Promise<void> {
    this.#wanted = (this.begun + 1) | 0;
    const shared = this.#next;
    if (shared !== undefined) {
      // Whose round it is may wait for the device while it holds the mutex.
      await (this.#memory.watch?.(ControlWord.flushMutex, shared) ?? shared);
      return;
    }
    this.#next = this.#mutex.runExclusive(async () => {
      // Who comes from now on may have completed more than a round copies that has begun.
      this.#next = undefined;
      if (isBefore(this.completed, this.#wanted)) await this.#lead();
      else this.#onShared();
    });
    await this.#next;
  }

  async #lead(): Promise<void> {
    const round = (this.#memory.add(ControlWord.roundsBegun, 1) + 1) | 0;
    await this.#run();
    this.#memory.store(ControlWord.roundsCompleted, round);
  }
}
