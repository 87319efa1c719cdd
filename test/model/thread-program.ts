/**
 * One thread of a model, stepped by running it again. JavaScript cannot stop a program in its middle
 * and keep it, but a program that has no other input is determined by what its operations on shared
 * memory have given so far: to take its next step it is run from its start, fed those results, and
 * stopped at the first operation it has no result for.
 */
import type { AtomicMemory } from '../../src/engine/words/atomic-memory.js';

/** What a program may do to shared memory in one step. */
export type OperationKind =
  | 'load'
  | 'store'
  | 'add'
  | 'or'
  | 'clear'
  | 'exchange'
  | 'compareExchange'
  | 'pause'
  | 'wait'
  | 'notify';

/** One atomic step that a program is about to take; `b` is the value of a `compareExchange`. */
export interface Operation {
  readonly kind: OperationKind;
  readonly index: number;
  readonly a: number;
  readonly b: number;
}

/** What can happen to a thread: its operation gives a number, or a wait of its ends. */
export type Event =
  | { readonly kind: 'result'; readonly value: number }
  | { readonly kind: 'wake'; readonly wait: number; readonly fails: boolean };

/** Results of the operations that are more than a number of memory. */
export const Outcome = { done: 0, blocked: 1, poisoned: 2 } as const;

/** Where a thread stands after some events. */
export type Action =
  | { readonly kind: 'operation'; readonly operation: Operation }
  | { readonly kind: 'waiting' }
  | { readonly kind: 'finished'; readonly value: unknown }
  | { readonly kind: 'failed'; readonly error: unknown };

/** What running a program with a history came to. */
export interface Run {
  readonly history: readonly Event[];
  /** Equal for runs after which the program does the same, whatever happens. */
  readonly key: string;
  readonly action: Action;
  /** The words of the waits under way, oldest first. */
  readonly waits: readonly number[];
}

/** A program of one thread. */
export type Program = (memory: ThreadMemory) => unknown;

/** What a program sees of the words: those that no thread changes are constants, and cost no step. */
export interface WordKinds {
  /** Whether some thread may change the word. */
  isShared(index: number): boolean;
  initial(index: number): number;
  /** Learns that a word is shared, after which the exploration begins again. */
  share(index: number): void;
  /** Whether what `call` and the like say may be forgotten is. */
  readonly forgets: boolean;
}

/** Thrown through a program to stop it at its next operation; never seen outside this file. */
class Suspended extends Error {}

/** What a wait or a pause throws in a model whose memory has been poisoned. */
export class ModelPoisoned extends Error {}

interface PendingWait {
  readonly index: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** The shared memory as one thread's program sees it. */
export class ThreadMemory implements AtomicMemory {
  readonly #history: readonly Event[];
  readonly #words: WordKinds;
  /** What each event so far means for the future: empty where it means nothing any more. */
  readonly #keys: string[] = [];
  readonly #waits: PendingWait[] = [];
  #cursor = 0;
  /** Calls under way, each within the one before; its number keeps their results apart. */
  #depth = 0;
  #spinBegan: number | undefined;
  #retryBegan: number | undefined;
  #next: Operation | undefined;

  constructor(history: readonly Event[], words: WordKinds) {
    this.#history = history;
    this.#words = words;
  }

  load(index: number): number {
    if (!this.#words.isShared(index)) return this.#words.initial(index);
    return this.#step('load', index, 0, 0);
  }

  store(index: number, value: number): void {
    this.#change('store', index, value, 0);
  }

  add(index: number, delta: number): number {
    return this.#change('add', index, delta, 0);
  }

  or(index: number, bits: number): number {
    return this.#change('or', index, bits, 0);
  }

  clear(index: number, bits: number): number {
    return this.#change('clear', index, bits, 0);
  }

  exchange(index: number, value: number): number {
    return this.#change('exchange', index, value, 0);
  }

  compareExchange(index: number, expected: number, value: number): number {
    return this.#change('compareExchange', index, expected, value);
  }

  /** Goes on once the word differs: asking before would give the same answer again. */
  pause(index: number, seen: number): void {
    const outcome = this.#change('pause', index, seen, 0);
    if (outcome === Outcome.poisoned) throw new ModelPoisoned('poisoned');
    if (this.#spinBegan !== undefined) this.#merge(this.#spinBegan, '');
  }

  wait(index: number, seen: number): Promise<void> {
    this.#words.share(index);
    let outcome: number;
    try {
      outcome = this.#step('wait', index, seen, 0);
    } catch (error) {
      // A program may keep the promise and never look at it again.
      if (error instanceof Suspended) return new Promise(() => undefined);
      throw error;
    }
    if (outcome === Outcome.done) return Promise.resolve();
    if (outcome === Outcome.poisoned) return Promise.reject(new ModelPoisoned('poisoned'));
    if (this.#retryBegan !== undefined) this.#merge(this.#retryBegan, `waits ${index} ${seen}`);
    return new Promise((resolve, reject) => this.#waits.push({ index, resolve, reject }));
  }

  notify(index: number): void {
    this.#step('notify', index, 0, 0);
  }

  /** Plain words from an index on, each access of which is a step too. */
  words(first: number, length: number): Int32Array {
    const at = (key: string | symbol): number | undefined =>
      typeof key === 'string' && /^\d+$/.test(key) ? first + Number(key) : undefined;
    return new Proxy(new Int32Array(length), {
      get: (target, key) => {
        const index = at(key);
        return index === undefined
          ? (Reflect.get(target, key, target) as unknown)
          : this.load(index);
      },
      set: (_target, key, value) => {
        const index = at(key);
        if (index === undefined) return false;
        this.store(index, value as number);
        return true;
      },
    });
  }

  /**
   * Runs a part of the program of which nothing but its result matters afterwards, so that
   * everything it can have seen on its way to the same result is explored as one from there on.
   * No other request of the thread may take steps meanwhile.
   */
  call<Value>(part: () => Value): Value {
    const began = this.#keys.length;
    const depth = this.#depth++;
    const end = (result: unknown): void => {
      this.#depth = depth;
      this.#mergeCall(began, depth, result);
    };
    let value: Value;
    try {
      value = part();
    } catch (error) {
      this.#depth = depth;
      throw error;
    }
    if (!(value instanceof Promise)) {
      end(value);
      return value;
    }
    return (value as Promise<unknown>).then(
      (result) => {
        end(result);
        return result;
      },
      (error: unknown) => {
        this.#depth = depth;
        throw error;
      },
    ) as Value;
  }

  /** A `call` that after each pause goes on as if it began anew, as the loops of spin locks do. */
  spin<Value>(part: () => Value): Value {
    return this.call(() => {
      this.#spinBegan = this.#keys.length;
      try {
        return part();
      } finally {
        this.#spinBegan = undefined;
      }
    });
  }

  /**
   * A `call` of a loop that waits and then tries again: what it saw before a wait it makes no use
   * of afterwards.
   */
  retry<Value>(part: () => Promise<Value>): Promise<Value> {
    return this.call(async () => {
      this.#retryBegan = this.#keys.length;
      try {
        return await part();
      } finally {
        this.#retryBegan = undefined;
      }
    });
  }

  /** Says that the `retry` under way goes on from here as if it began anew. */
  again(): void {
    if (this.#retryBegan !== undefined) this.#merge(this.#retryBegan, '');
  }

  /** Runs a program up to the first operation that the history has no result of. */
  static async run(program: Program, history: readonly Event[], words: WordKinds): Promise<Run> {
    const memory = new ThreadMemory(history, words);
    let ended: Action | undefined;
    const end = (action: Action): void => {
      ended ??= action;
    };
    try {
      const value = program(memory);
      if (value instanceof Promise) {
        value.then(
          (result: unknown) => {
            end({ kind: 'finished', value: result });
          },
          (error: unknown) => {
            end({ kind: 'failed', error });
          },
        );
        await turn();
      } else {
        end({ kind: 'finished', value });
      }
    } catch (error) {
      end({ kind: 'failed', error });
    }
    while (memory.#next === undefined && memory.#wake()) await turn();
    return {
      history,
      key: memory.#keys.filter((key) => key !== '').join(' '),
      action:
        memory.#next !== undefined
          ? { kind: 'operation', operation: memory.#next }
          : (ended ?? { kind: 'waiting' }),
      waits: memory.#waits.map(({ index }) => index),
    };
  }

  #change(kind: OperationKind, index: number, a: number, b: number): number {
    this.#words.share(index);
    return this.#step(kind, index, a, b);
  }

  #step(kind: OperationKind, index: number, a: number, b: number): number {
    if (this.#next !== undefined) throw new Suspended();
    if (this.#cursor === this.#history.length) {
      this.#next = { kind, index, a, b };
      throw new Suspended();
    }
    const event = this.#history[this.#cursor++];
    if (event.kind !== 'result') throw new Error('a program depends on more than its results');
    this.#keys.push(keyOf(event));
    return event.value;
  }

  #mergeCall(began: number, depth: number, value: unknown): void {
    // A part that swallowed its own suspension has not come to its end.
    if (this.#next !== undefined) throw new Suspended();
    if (this.#keys.length === began) return;
    this.#merge(began, `call ${depth} gave ${JSON.stringify(value ?? null)}`);
  }

  /** Takes all events from one on as one. */
  #merge(first: number, key: string): void {
    if (!this.#words.forgets) return;
    this.#keys.fill('', first);
    if (this.#keys.length > first) this.#keys[this.#keys.length - 1] = key;
  }

  #wake(): boolean {
    if (this.#cursor === this.#history.length) return false;
    const event = this.#history[this.#cursor++];
    if (event.kind !== 'wake') throw new Error('a program depends on more than its results');
    this.#keys.push(keyOf(event));
    const [wait] = this.#waits.splice(event.wait, 1);
    if (event.fails) wait.reject(new ModelPoisoned('poisoned'));
    else wait.resolve();
    return true;
  }
}

/** What tells events apart. */
export function keyOf(event: Event): string {
  switch (event.kind) {
    case 'result':
      return String(event.value);
    case 'wake':
      return `wakes ${event.wait}${event.fails ? '!' : ''}`;
  }
}

/** A program that gives whether it came to its end, or was told that memory is poisoned. */
export function orPoisoned(program: Program): Program {
  return async (memory) => {
    try {
      await program(memory);
      return 'done';
    } catch (error) {
      if (error instanceof ModelPoisoned) return 'poisoned';
      throw error;
    }
  };
}

/** Resolves when no promise of any program is left to be followed. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
