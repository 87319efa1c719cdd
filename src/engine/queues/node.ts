/**
 * A node: an open image as all its queues on all threads share it, whichever format it has. It has the
 * gate, the epochs, the size, and the poison; formats add words of their own.
 */
import { Poison } from '../words/poison.js';
import { ControlWord, QueueWord, queueWord } from '../words/control-block.js';
import { ControlWords } from '../words/control-words.js';
import { Watchdog } from '../words/watchdog.js';
import { QueueGate, gateClosed, runAlone } from './gate.js';
import { releaseQueueLine, takeQueueLine } from './queue-line.js';

/** A size in two words: the lower bits in one, the rest in the other. */
const lowBits = 2 ** 30;

/** What may be done to a node by whoever has it open. */
export interface Permissions {
  /** The content of its disk may be changed. */
  readonly write: boolean;
  /** Its metadata may be put right, and nothing else be changed. */
  readonly repair: boolean;
}

/** One thread's view of a node. */
export class Node {
  readonly filename: string;
  readonly permissions: Permissions;
  readonly control: ControlWords;
  readonly poison: Poison;
  readonly watchdog: Watchdog;
  #size = 0;
  /** The value of `ControlWord.resizes` that goes with it. */
  #resizes = -1;

  /** @param block from `allocateControlBlock` */
  constructor(block: Int32Array, filename: string, permissions: Permissions) {
    this.filename = filename;
    this.permissions = permissions;
    this.poison = new Poison(block, filename);
    this.watchdog = new Watchdog(filename);
    this.control = new ControlWords(block, this.poison, this.watchdog);
  }

  /** Virtual size in bytes. */
  get size(): number {
    const resizes = this.control.load(ControlWord.resizes);
    if (resizes !== this.#resizes) this.#readSize();
    return this.#size;
  }

  #readSize(): void {
    for (;;) {
      const before = this.control.load(ControlWord.resizes);
      const high = this.control.load(ControlWord.sizeHigh);
      const low = this.control.load(ControlWord.sizeLow);
      if (before % 2 !== 0 || before !== this.control.load(ControlWord.resizes)) continue;
      this.#size = high * lowBits + low;
      this.#resizes = before;
      return;
    }
  }

  /** Says how large the disk is now, in bytes, while no queue runs a request. */
  resize(size: number): void {
    this.control.add(ControlWord.resizes, 1);
    this.control.store(ControlWord.sizeHigh, Math.floor(size / lowBits));
    this.control.store(ControlWord.sizeLow, size % lowBits);
    this.control.add(ControlWord.resizes, 1);
  }

  /** Runs a section while no queue of any thread runs a request. @throws ERR_COWHERD_POISONED */
  runAlone<Result>(section: () => Promise<Result>): Promise<Result> {
    return runAlone(this.control, section);
  }
}

/**
 * The way of one queue into a node, for a format whose requests free nothing that others could still look
 * at, and so have no epochs.
 */
export class Entrance {
  readonly #node: Node;
  readonly #line: number;
  readonly #gate: QueueGate;

  /** @throws ERR_COWHERD_OUT_OF_RANGE if the node has too many queues already */
  constructor(node: Node) {
    this.#node = node;
    this.#line = takeQueueLine(node.control);
    node.control.store(queueWord(this.#line, QueueWord.thread), node.control.thread);
    this.#gate = new QueueGate(node.control, this.#line, false);
  }

  /** Begins a request if the gate is open, which `leave` then ends. */
  tryEnter(): boolean {
    return this.#gate.tryEnter() !== gateClosed;
  }

  /** Begins a request once the gate is open. @throws ERR_COWHERD_POISONED */
  async enter(): Promise<void> {
    await this.#gate.enter();
  }

  leave(): void {
    this.#gate.leave(0);
  }

  /** Runs a request inside the gate. */
  async run<Result>(request: () => Promise<Result>): Promise<Result> {
    if (!this.tryEnter()) await this.enter();
    try {
      return await request();
    } finally {
      this.leave();
    }
  }

  /** Waits for the queue's requests, and gives its place back. */
  async close(): Promise<void> {
    const { control } = this.#node;
    await control.watch(queueWord(this.#line, QueueWord.active), this.#gate.idle());
    releaseQueueLine(control, this.#line);
  }
}
