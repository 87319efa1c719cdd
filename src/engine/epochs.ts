/**
 * Epochs: which requests began before a reference was removed. Each queue publishes the epoch of
 * the oldest request it still runs, before that request looks at any table; what was removed in an
 * epoch may be reused once every published epoch is later.
 *
 * Epochs are even and wrap: two of them are compared by their difference.
 */
import type { AtomicMemory } from './atomic-memory.js';
import { ControlWord, QueueWord, idleEpoch, maxQueues, queueWord } from './control-block.js';

const epochStep = 2;

/** Whether one epoch, or flush round, came before another. */
export function isBefore(one: number, other: number): boolean {
  return ((one - other) | 0) < 0;
}

/** The requests of one queue, by the epoch each began in. */
export class QueueEpochs {
  readonly #memory: AtomicMemory;
  readonly #published: number;
  /** Epochs with requests under way, oldest first, and how many each has. */
  readonly #epochs: number[] = [];
  readonly #counts: number[] = [];

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
    const at = this.#epochs.indexOf(epoch);
    const count = this.#counts[at] - 1;
    this.#counts[at] = count;
    if (count > 0 || at > 0) return;
    while (this.#counts.length > 0 && this.#counts[0] === 0) {
      this.#counts.shift();
      this.#epochs.shift();
    }
    this.#memory.store(this.#published, this.#epochs.length > 0 ? this.#epochs[0] : idleEpoch);
  }
}

/** Ends the current epoch after a removal. @returns the epoch the removal belongs to */
export function closeEpoch(memory: AtomicMemory): number {
  return memory.add(ControlWord.epoch, epochStep);
}

/** The oldest epoch that some request of any queue still runs in; the current one if none runs. */
export function oldestEpoch(memory: AtomicMemory): number {
  let oldest = memory.load(ControlWord.epoch);
  for (let line = 0; line < maxQueues; line++) {
    if (memory.load(queueWord(line, QueueWord.inUse)) === 0) continue;
    const published = memory.load(queueWord(line, QueueWord.oldestEpoch));
    if (published !== idleEpoch && isBefore(published, oldest)) oldest = published;
  }
  return oldest;
}
