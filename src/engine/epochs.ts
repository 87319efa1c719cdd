/**
 * Epochs: which requests began before a reference was removed. Each queue publishes the epoch of
 * the oldest request it still runs, before that request looks at any table; what was removed in an
 * epoch may be reused once every published epoch is later.
 */
import { ControlWord, QueueWord, idleEpoch, maxQueues, queueWord } from './control-block.js';

/** The requests of one queue, by the epoch each began in. */
export class QueueEpochs {
  readonly #control: Int32Array;
  readonly #published: number;
  /** Epochs with requests under way, oldest first, and how many each has. */
  readonly #epochs: number[] = [];
  readonly #counts: number[] = [];

  constructor(control: Int32Array, queueIndex: number) {
    this.#control = control;
    this.#published = queueWord(queueIndex, QueueWord.oldestEpoch);
    Atomics.store(control, this.#published, idleEpoch);
  }

  /** Marks a request as begun. @returns its epoch, which `end` takes */
  begin(): number {
    const now = Atomics.load(this.#control, ControlWord.epoch);
    const last = this.#epochs.length - 1;
    if (last >= 0 && this.#epochs[last] === now) {
      this.#counts[last] = this.#counts[last] + 1;
      return now;
    }
    this.#epochs.push(now);
    this.#counts.push(1);
    if (last < 0) Atomics.store(this.#control, this.#published, now);
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
    Atomics.store(this.#control, this.#published, this.#epochs[0] ?? idleEpoch);
  }
}

/** Ends the current epoch after a removal. @returns the epoch the removal belongs to */
export function closeEpoch(control: Int32Array): number {
  return Atomics.add(control, ControlWord.epoch, 1);
}

/** The oldest epoch that some request of any queue still runs in; `idleEpoch` if none runs. */
export function oldestEpoch(control: Int32Array): number {
  let oldest = idleEpoch;
  for (let queue = 0; queue < maxQueues; queue++) {
    if (Atomics.load(control, queueWord(queue, QueueWord.inUse)) === 0) continue;
    oldest = Math.min(oldest, Atomics.load(control, queueWord(queue, QueueWord.oldestEpoch)));
  }
  return oldest;
}
