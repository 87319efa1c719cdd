/**
 * The gate between requests and exclusive operations. Each queue says in its own line whether it has any
 * request under way; an exclusive operation closes the gate and waits until none has.
 */
import assert from 'node:assert/strict';
import type { AtomicMemory } from '../words/atomic-memory.js';
import { ControlWord, GateState, QueueWord, maxQueues, queueWord } from '../words/control-block.js';
import { QueueEpochs } from './epochs.js';
import { UnderWay } from './under-way.js';

/** What `tryEnter` gives instead of an epoch while the gate is not open; odd, which no epoch is. */
export const gateClosed = -1;
/** What it gives to a request of a queue that has no epochs. */
const noEpoch = 0;

/** One queue's way through the gate; also keeps its epochs, which begin and end with requests. */
export class QueueGate {
  readonly #memory: AtomicMemory;
  readonly #active: number;
  readonly #epochs: QueueEpochs | undefined;
  #count = 0;
  /** Everything of the queue, also what is not inside the gate: what waits for it, and flushes. */
  readonly #underWay = new UnderWay();

  /** @param hasEpochs whether its requests look at what others may remove meanwhile */
  constructor(memory: AtomicMemory, line: number, hasEpochs = true) {
    this.#memory = memory;
    this.#active = queueWord(line, QueueWord.active);
    this.#epochs = hasEpochs ? new QueueEpochs(memory, line) : undefined;
  }

  /** Begins a request if the gate is open. @returns its epoch, which `leave` takes, or `gateClosed` */
  tryEnter(): number {
    if (this.#count++ === 0) {
      this.#underWay.begin();
      this.#memory.store(this.#active, 1);
    }
    if (this.#memory.load(ControlWord.gate) === GateState.open) {
      return this.#epochs === undefined ? noEpoch : this.#epochs.begin();
    }
    this.#lower();
    return gateClosed;
  }

  /**
   * Begins a request, waiting while the gate is closed.
   *
   * @returns its epoch
   * @throws ERR_COWHERD_POISONED
   */
  async enter(): Promise<number> {
    return this.beside(async () => {
      for (;;) {
        const epoch = this.tryEnter();
        if (epoch !== gateClosed) return epoch;
        await this.#memory.wait(ControlWord.gate, GateState.closed);
      }
    });
  }

  /** Runs work of the queue that the gate does not count, and that `idle` waits for all the same. */
  beside<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#underWay.run(work);
  }

  /** Ends a request. */
  leave(epoch: number): void {
    this.#epochs?.end(epoch);
    this.#lower();
  }

  /** Resolves once nothing of this queue is under way that could still use its line. */
  idle(): Promise<void> {
    return this.#underWay.idle();
  }

  #lower(): void {
    assert(this.#count > 0, 'a gate that nobody is inside of cannot be left');
    if (--this.#count > 0) return;
    this.#memory.store(this.#active, 0);
    if (this.#memory.load(ControlWord.gate) === GateState.closed) {
      this.#memory.notify(this.#active);
    }
    this.#underWay.end();
  }
}

/** Closes the gate and waits until no queue runs a request. */
export async function closeGate(memory: AtomicMemory): Promise<void> {
  const { open, closed } = GateState;
  while (memory.compareExchange(ControlWord.gate, open, closed) !== open) {
    await memory.wait(ControlWord.gate, closed);
  }
  memory.noteHolder?.(ControlWord.gate, true);
  for (let line = 0; line < maxQueues; line++) {
    const active = queueWord(line, QueueWord.active);
    while (memory.load(active) !== 0) await memory.wait(active, 1);
  }
}

/** Opens the gate that `closeGate` closed. */
export function openGate(memory: AtomicMemory): void {
  memory.noteHolder?.(ControlWord.gate, false);
  // Not a store, which would hide that a thread has died meanwhile.
  const seen = memory.compareExchange(ControlWord.gate, GateState.closed, GateState.open);
  assert(seen !== GateState.open, 'a gate is opened that nobody has closed');
  memory.notify(ControlWord.gate);
}

/** Runs `section` while no queue runs a request. */
export async function runAlone<Result>(
  memory: AtomicMemory,
  section: () => Promise<Result>,
): Promise<Result> {
  await closeGate(memory);
  try {
    return await section();
  } finally {
    openGate(memory);
  }
}
