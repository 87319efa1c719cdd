/** What rules do: which are in force, by the events that were heard, and which request one of them fails. */
import { errnoName } from '../../../system-errors.js';
import { eventOfOpening, type IoType, usualIoTypes } from './events.js';

const sectorBytes = 512;

/** Has requests fail from an event on, until another event brings other such rules into force. */
export interface InjectError {
  readonly event: string;
  /** The state in which the event counts; any if left out, or 0. */
  readonly state?: number | undefined;
  /** What fails; all but looking for holes if left out. */
  readonly iotype?: IoType | undefined;
  /** The number of the errno; default 5, EIO. 0 lets pass what the rule is about. */
  readonly errno?: number | undefined;
  /** Only requests fail that have this sector, of 512 bytes. */
  readonly sector?: number | undefined;
  /** Whether one request fails, and no other. */
  readonly once?: boolean | undefined;
  readonly immediately?: boolean | undefined;
}

/** Has an event lead from a state to another. */
export interface SetState {
  readonly event: string;
  readonly state?: number | undefined;
  readonly newState: number;
}

/** See the file's comment. */
export interface Rules {
  readonly injectError: readonly InjectError[];
  readonly setState: readonly SetState[];
}

/** The most rules that lead to errors. */
export const mostRules = 1024;
/** Words that all threads share: the state, and for each rule what has become of it. */
export const wordsOfRules = 1 + mostRules;

const initialState = 1;

/** What a rule's word says. */
const Force = { none: 0, active: 1, spent: 2 } as const;

/** See the file's comment; of all queues on all threads together. */
export class RuleBook {
  readonly #rules: Rules;
  readonly #words: Int32Array;

  /** @param words of `wordsOfRules`, zero at first */
  constructor(rules: Rules, words: Int32Array) {
    this.#rules = rules;
    this.#words = words;
  }

  /** The file was opened: on the first thread that has it. */
  open(): void {
    if (Atomics.compareExchange(this.#words, 0, 0, initialState + 1) === 0) {
      this.hear(eventOfOpening);
    }
  }

  /** Brings into force what an event does. */
  hear(event: string): void {
    // A word of 0 is that of a file that was not opened yet.
    const state = Atomics.load(this.#words, 0) - 1;
    const isMet = (rule: InjectError | SetState): boolean =>
      rule.event === event && ((rule.state ?? 0) === 0 || rule.state === state);
    const { injectError, setState } = this.#rules;
    const met = injectError.map((rule, index) => isMet(rule) && this.#force(index) !== Force.spent);
    if (met.includes(true)) {
      for (const [index, isActive] of met.entries()) {
        const from = isActive ? Force.none : Force.active;
        Atomics.compareExchange(this.#words, 1 + index, from, isActive ? Force.active : Force.none);
      }
    }
    // Of several the one that was said first, as in QEMU.
    const change = setState.find(isMet);
    if (change !== undefined) Atomics.store(this.#words, 0, change.newState + 1);
  }

  /** What a request fails with, by the symbolic name of an errno, if it does. */
  failureOf(type: IoType, offset: number, length: number): string | undefined {
    for (const [index, rule] of this.#rules.injectError.entries()) {
      if (this.#force(index) !== Force.active) continue;
      const { iotype, sector, errno = 5, once = false } = rule;
      if (iotype === undefined ? !usualIoTypes.includes(type) : iotype !== type) continue;
      const at = sector === undefined ? offset : sector * sectorBytes;
      const isWithin = sector === undefined || (at >= offset && at < offset + length);
      if (!isWithin) continue;
      if (errno === 0) return undefined;
      if (!once) return errnoName(errno);
      const { active, spent } = Force;
      const before = Atomics.compareExchange(this.#words, 1 + index, active, spent);
      if (before === Force.active) return errnoName(errno);
    }
    return undefined;
  }

  #force(index: number): number {
    return Atomics.load(this.#words, 1 + index);
  }
}
