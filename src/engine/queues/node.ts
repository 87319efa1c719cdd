/**
 * A node: an open image as all its queues on all threads share it, whichever format it has. It has the
 * gate, the epochs, the size, and the poison; formats add words of their own.
 */
import type { AtomicMemory } from '../words/atomic-memory.js';
import { Poison } from '../words/poison.js';
import { ControlWord, QueueWord, queueWord } from '../words/control-block.js';
import { ControlWords } from '../words/control-words.js';
import { Watchdog } from '../words/watchdog.js';
import { QueueGate, gateClosed, runAlone } from './gate.js';
import { releaseQueueLine, takeQueueLine } from './queue-line.js';

/** A size in two words: the lower bits in one, the rest in the other. */
const lowBits = 2 ** 30;

/** Words of a size that changes rarely, and how often it has: odd while it changes. */
interface SizeWords {
  readonly changes: number;
  readonly low: number;
  readonly high: number;
}

const ownWords: SizeWords = {
  changes: ControlWord.resizes,
  low: ControlWord.sizeLow,
  high: ControlWord.sizeHigh,
};
const belowWords: SizeWords = {
  changes: ControlWord.edgeReplacements,
  low: ControlWord.belowSizeLow,
  high: ControlWord.belowSizeHigh,
};

/** A size in bytes that all threads share, as one of them has seen it last. */
class SharedSize {
  readonly #memory: AtomicMemory;
  readonly #words: SizeWords;
  #bytes = 0;
  /** The count of changes that goes with it. */
  #seen = -1;

  constructor(memory: AtomicMemory, words: SizeWords) {
    this.#memory = memory;
    this.#words = words;
  }

  get bytes(): number {
    if (this.#memory.load(this.#words.changes) !== this.#seen) this.#look();
    return this.#bytes;
  }

  #look(): void {
    const { changes, low, high } = this.#words;
    for (;;) {
      const before = this.#memory.load(changes);
      const bytes = (this.#memory.load(high) >>> 0) * lowBits + this.#memory.load(low);
      if (before % 2 !== 0 || before !== this.#memory.load(changes)) continue;
      this.#bytes = bytes;
      this.#seen = before;
      return;
    }
  }

  /** Changes it, and what goes with it, by one thread at a time. */
  change(bytes: number, beside: () => void = () => undefined): void {
    const { changes, low, high } = this.#words;
    this.#memory.add(changes, 1);
    beside();
    this.#memory.store(high, Math.floor(bytes / lowBits));
    this.#memory.store(low, bytes % lowBits);
    this.#memory.add(changes, 1);
  }
}

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
  readonly #size: SharedSize;
  readonly #below: SharedSize;

  /** @param block from `allocateControlBlock` */
  constructor(block: Int32Array, filename: string, permissions: Permissions) {
    this.filename = filename;
    this.permissions = permissions;
    this.poison = new Poison(block, filename);
    this.watchdog = new Watchdog(filename);
    this.control = new ControlWords(block, this.poison, this.watchdog);
    this.#size = new SharedSize(this.control, ownWords);
    this.#below = new SharedSize(this.control, belowWords);
  }

  /** Virtual size in bytes. */
  get size(): number {
    return this.#size.bytes;
  }

  /** Says how large the disk is now, in bytes, while no queue runs a request. */
  resize(size: number): void {
    this.#size.change(size);
  }

  /** Virtual size of the image below in bytes; 0 if there is none. */
  get belowSize(): number {
    return this.#below.bytes;
  }

  /** How often the image below was replaced; even, unless one is being put there. */
  get edgeReplacements(): number {
    return this.control.load(ControlWord.edgeReplacements);
  }

  /** Says that another image lies below, of a size in bytes, while no queue runs a request. */
  replaceEdge(size: number, beside?: () => void): void {
    this.#below.change(size, beside);
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
