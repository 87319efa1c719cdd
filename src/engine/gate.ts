/**
 * The gate between requests and exclusive operations. Each queue counts its own requests in its own
 * line; an exclusive operation closes the gate and waits for every count to reach zero.
 */
import { ControlWord, QueueWord, maxQueues, queueWord } from './control-block.js';
import { QueueEpochs } from './epochs.js';
import { CowherdError } from '../errors.js';

const open = 0;
const closed = 1;

/** One queue's way through the gate; also keeps its epochs, which begin and end with requests. */
export class QueueGate {
  readonly #control: Int32Array;
  readonly #queueIndex: number;
  readonly #active: number;
  readonly #epochs: QueueEpochs;
  #count = 0;
  #onIdle: (() => void)[] = [];

  /** Takes a free line of the control block. */
  constructor(control: Int32Array) {
    this.#control = control;
    this.#queueIndex = takeLine(control);
    this.#active = queueWord(this.#queueIndex, QueueWord.active);
    this.#epochs = new QueueEpochs(control, this.#queueIndex);
  }

  /**
   * Begins a request if the gate is open.
   *
   * @returns the request's epoch, which `leave` takes, or -1 if the gate is closed
   */
  tryEnter(): number {
    Atomics.store(this.#control, this.#active, ++this.#count);
    if (Atomics.load(this.#control, ControlWord.gate) === open) return this.#epochs.begin();
    this.#lower();
    return -1;
  }

  /** Begins a request, waiting while the gate is closed. @returns its epoch */
  async enter(): Promise<number> {
    for (;;) {
      const epoch = this.tryEnter();
      if (epoch >= 0) return epoch;
      await Atomics.waitAsync(this.#control, ControlWord.gate, closed).value;
    }
  }

  /** Ends a request. */
  leave(epoch: number): void {
    this.#epochs.end(epoch);
    this.#lower();
  }

  /** Resolves once this queue runs no request. */
  async idle(): Promise<void> {
    if (this.#count === 0) return;
    await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  /** Gives the queue's line back; the queue must be idle. */
  release(): void {
    Atomics.store(this.#control, queueWord(this.#queueIndex, QueueWord.inUse), 0);
  }

  #lower(): void {
    Atomics.store(this.#control, this.#active, --this.#count);
    if (this.#count > 0) return;
    if (Atomics.load(this.#control, ControlWord.gate) === closed) {
      Atomics.notify(this.#control, this.#active);
    }
    const waiting = this.#onIdle;
    if (waiting.length === 0) return;
    this.#onIdle = [];
    for (const resolve of waiting) resolve();
  }
}

/** Closes the gate, waits until no queue runs a request, runs `section`, and reopens. */
export async function runAlone<Result>(
  control: Int32Array,
  section: () => Promise<Result>,
): Promise<Result> {
  while (Atomics.compareExchange(control, ControlWord.gate, open, closed) !== open) {
    await Atomics.waitAsync(control, ControlWord.gate, closed).value;
  }
  try {
    for (let queue = 0; queue < maxQueues; queue++) {
      const active = queueWord(queue, QueueWord.active);
      for (let count; (count = Atomics.load(control, active)) > 0;) {
        await Atomics.waitAsync(control, active, count).value;
      }
    }
    return await section();
  } finally {
    Atomics.store(control, ControlWord.gate, open);
    Atomics.notify(control, ControlWord.gate);
  }
}

function takeLine(control: Int32Array): number {
  for (let queue = 0; queue < maxQueues; queue++) {
    const inUse = queueWord(queue, QueueWord.inUse);
    if (Atomics.compareExchange(control, inUse, 0, 1) === 0) return queue;
  }
  throw new CowherdError(
    'ERR_COWHERD_OUT_OF_RANGE',
    `an image can be held by at most ${maxQueues} queues`,
  );
}
