/**
 * Whether data were written that no barrier has covered yet. Each queue notes its own in its own
 * line; the leader of a flush round collects the notes of all.
 */
import type { AtomicMemory } from '../words/atomic-memory.js';
import { ControlWord, QueueWord, queueWord } from '../words/control-block.js';
import { linesInUse } from '../queues/queue-line.js';

/** One queue's note. */
export class UnflushedData {
  readonly #memory: AtomicMemory;
  readonly #word: number;

  constructor(memory: AtomicMemory, line: number) {
    this.#memory = memory;
    this.#word = queueWord(line, QueueWord.unflushedData);
  }

  /** Notes a write that has completed, before its caller hears of it. */
  note(): void {
    if (this.#memory.load(this.#word) === 0) this.#memory.store(this.#word, 1);
  }

  /** Leaves the note to the image, because the queue goes. */
  handOver(): void {
    if (this.#memory.load(this.#word) === 0) return;
    // In this order: no instant at which a leader finds neither note.
    this.#memory.store(ControlWord.unflushedData, 1);
    this.#memory.store(this.#word, 0);
  }
}

/** Takes every note. @returns whether there was one: whoever took it owes a barrier */
export function takeUnflushed(memory: AtomicMemory): boolean {
  let noted = false;
  for (const line of linesInUse(memory)) {
    const word = queueWord(line, QueueWord.unflushedData);
    if (memory.load(word) !== 0 && memory.exchange(word, 0) !== 0) noted = true;
  }
  // Last, because queues that leave move their notes there.
  return memory.exchange(ControlWord.unflushedData, 0) !== 0 || noted;
}
