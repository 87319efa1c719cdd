/**
 * Epochs: which requests began before a reference was removed. Each queue publishes the epoch of
 * the oldest request it still runs, before that request looks at any table; what was removed in an
 * epoch may be reused once every published epoch is later.
 *
 * Epochs are even and wrap: two of them are compared by their difference.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../words/atomic-memory.js';
import { ControlWord, QueueWord, idleEpoch, queueWord } from '../words/control-block.js';
import { linesInUse } from './queue-line.js';

const epochStep = 2;

/** Whether one epoch, or flush round, came before another. */
export function isBefore(one: number, other: number): boolean {
  return ((one - other) | 0) < 0;
}

/** The requests of one queue, by the epoch each began in. */
export class QueueEpochs {
  readonly #memory: AtomicMemory;
  readonly #published: number;
  /**
   * Epochs that requests began in, and how many each has under way: from the oldest that has any, at
   * `#oldest`, to the youngest.
   */
  readonly #epochs: number[] = [];
  readonly #counts: number[] = [];
  #oldest = 0;

  constructor(memory: AtomicMemory, line: number) {
    this.#memory = memory;
    this.#published = queueWord(line, QueueWord.oldestEpoch);
    memory.store(this.#published, idleEpoch);
  }

  /** Marks a request as begun. @returns its epoch, which `end` takes */
  begin(): number {
    const now = this.#memory.load(ControlWord.epoch);
    const last = this.#epochs.length - 1;
    if (last >= 0 && this.#epochs[last] === now) {
      this.#counts[last] = this.#counts[last] + 1;
      return now;
    }
    this.#epochs.push(now);
    this.#counts.push(1);
    if (last < 0) this.#memory.store(this.#published, now);
    return now;
  }

  /** Marks a request of an epoch as ended. */
  end(epoch: number): void {
    const at = this.#find(epoch);
    const count = this.#counts[at] - 1;
    // A request that ends twice would let go what another one still sees.
    assert(count >= 0, 'a request has ended that was not under way');
    this.#counts[at] = count;
    if (count > 0 || at > this.#oldest) return;
    const { length } = this.#counts;
    while (this.#oldest < length && this.#counts[this.#oldest] === 0) this.#oldest++;
    const isIdle = this.#oldest === length;
    this.#memory.store(this.#published, isIdle ? idleEpoch : this.#epochs[this.#oldest]);
    // Rarely enough that an end costs the same however many have gone before.
    if (isIdle || this.#oldest * 2 > length) this.#forgetEnded();
  }

  #forgetEnded(): void {
    if (this.#oldest === this.#counts.length) {
      // Taken out one by one, arrays keep their room for the next ones.
      for (; this.#oldest > 0; this.#oldest--) {
        this.#epochs.pop();
        this.#counts.pop();
      }
      return;
    }
    this.#epochs.splice(0, this.#oldest);
    this.#counts.splice(0, this.#oldest);
    this.#oldest = 0;
  }

  /** Index of an epoch that has a request under way; epochs lie in ascending order. */
  #find(epoch: number): number {
    let low = this.#oldest;
    let high = this.#epochs.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(this.#epochs[middle], epoch)) low = middle + 1;
      else high = middle;
    }
    assert(this.#epochs[low] === epoch, 'no request of this epoch is under way');
    return low;
  }
}

/** Ends the current epoch after a removal. @returns the epoch the removal belongs to */
export function closeEpoch(memory: AtomicMemory): number {
  return memory.add(ControlWord.epoch, epochStep);
}

/** The oldest epoch that some request of any queue still runs in; the current one if none runs. */
export function oldestEpoch(memory: AtomicMemory): number {
  let oldest = memory.load(ControlWord.epoch);
  for (const line of linesInUse(memory)) {
    const published = memory.load(queueWord(line, QueueWord.oldestEpoch));
    if (published !== idleEpoch && isBefore(published, oldest)) oldest = published;
  }
  return oldest;
}
