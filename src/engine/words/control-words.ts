/** The words of a control block, with notes of which thread holds its locks: for whoever waits in vain. */
import { monotonicMs } from '../../clock.js';
import { ControlWord, QueueWord, holderWord, lineOf, queueWord } from './control-block.js';
import type { Poison } from './poison.js';
import { SharedWords } from './shared-words.js';
import { type Watchdog, WordWatch } from './watchdog.js';

const lockNames: Readonly<Partial<Record<number, string>>> = {
  [ControlWord.gate]: 'the gate',
  [ControlWord.l1Mutex]: 'the L1 mutex',
  [ControlWord.refcountMutex]: 'the refcount mutex',
  [ControlWord.flushMutex]: 'the flush mutex',
  [ControlWord.headerMutex]: 'the header mutex',
};

/** One thread's view of a control block. */
export class ControlWords extends SharedWords {
  /** This thread's number: from 0, in the order in which threads have opened the image. */
  readonly thread: number;
  /** Hears of waits of this thread that last. */
  readonly watchdog: Watchdog;

  constructor(block: Int32Array, poison: Poison, watchdog: Watchdog) {
    super(block, poison, new WordWatch(watchdog, (index) => this.describe(index)));
    this.watchdog = watchdog;
    this.thread = this.add(ControlWord.threads, 1);
  }

  /** Watches a wait that ends with this thread's own work, such as for a word that one of its requests holds. */
  watch<Result>(index: number, work: Promise<Result>): Promise<Result> {
    return this.watchdog.watch(work, () => this.describe(index));
  }

  noteHolder(index: number, holds: boolean): void {
    const word = holderWord(index);
    this.store(word + 1, monotonicMs() | 0);
    this.store(word, holds ? this.thread + 1 : 0);
  }

  /** What somebody waits for who waits for a word, and who holds it. */
  describe(index: number): string {
    const name = lockNames[index];
    if (name === undefined) return this.#describeQueue(lineOf(index));
    const word = holderWord(index);
    const holder = this.load(word) - 1;
    if (holder < 0) return `${name}, which nobody holds`;
    const seconds = Math.round(((monotonicMs() - this.load(word + 1)) | 0) / 1000);
    return `${name}, which thread ${holder} has held for ${seconds} s`;
  }

  /** A queue, and whose it is. */
  nameQueue(line: number): string {
    return `queue ${line} of thread ${this.load(queueWord(line, QueueWord.thread))}`;
  }

  #describeQueue(line: number): string {
    const has = this.load(queueWord(line, QueueWord.active)) === 0 ? 'has no' : 'still has';
    return `${this.nameQueue(line)}, which ${has} requests under way`;
  }
}
