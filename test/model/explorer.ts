/**
 * The model explorer: runs every interleaving of a few threads of bounded programs over shared
 * words, step by atomic step, and finds the shortest one in which something goes wrong.
 *
 * States that are equal are explored once: the words, where each thread stands (what its operations
 * have given it so far), and who has been woken. Interleavings are counted exactly all the same, as
 * paths through the graph of states. The memory is sequentially consistent, as `Atomics` are.
 *
 * A blocked wait ends only when its word is notified, or by one of the few wakes for no reason that
 * a model may allow; so a lost wake-up leaves a state in which nobody can move.
 */
import {
  type Action,
  type Event,
  type Operation,
  type Program,
  type Run,
  type WordKinds,
  Outcome,
  ThreadMemory,
  keyOf,
} from './thread-program.js';

/** Words by index. */
export type Words = Readonly<Record<number, number>>;

/** Something to be explored. */
export interface Model {
  /** The programs, by the names of their threads. */
  readonly threads: Readonly<Record<string, Program>>;
  /** What words are at first, where not 0. */
  readonly initial?: Words;
  /** Once the word is the value, every wait and pause that would go on blocking throws. */
  readonly poison?: { readonly index: number; readonly value: number };
  /** How many waits in all may end for no reason. */
  readonly spuriousWakes?: number;
  /** Throws if, with every thread at its end, something is wrong. */
  readonly atEnd?: (load: (index: number) => number, results: readonly unknown[]) => void;
  /** False to forget nothing of what threads have seen: many more states, the same interleavings. */
  readonly forgets?: boolean;
  /** What words are called in a schedule. */
  readonly names?: Readonly<Record<number, string>>;
}

/**
 * What can be wrong: a program threw, or the check at the end; nobody can move; some threads can go
 * on for ever without any coming to its end.
 */
export type FailureKind = 'threw' | 'wrong-end' | 'stuck' | 'endless';

/** An interleaving in which something is wrong. */
export interface Failure {
  readonly kind: FailureKind;
  readonly message: string;
  /** Every step: who, what, and what it gave. */
  readonly schedule: readonly string[];
}

/** What an exploration came to. */
export interface Exploration {
  readonly threads: number;
  readonly states: number;
  /** All interleavings; 0 if it stopped at a failure. */
  readonly interleavings: bigint;
  readonly failure: Failure | undefined;
}

const maxStates = 2_000_000;

/** Explores a model to its end, or to its first failure, which is a shortest one. */
export async function explore(model: Model): Promise<Exploration> {
  const shared = new Set<number>();
  for (;;) {
    const exploration = new Explorer(model, shared);
    const known = shared.size;
    const result = await exploration.explore();
    // What was read as a constant turned out to be changed by some thread: nothing read holds.
    if (shared.size === known) return result;
  }
}

/** Where a thread stands: one for each history that differs. */
interface Stand extends Run {
  readonly thread: number;
  readonly number: number;
  /** The stands that follow, by what happens. */
  readonly next: Map<string, Stand>;
}

/** One step that can be taken from a state. */
interface Step {
  readonly from: number;
  readonly stand: Stand;
  readonly event: Event;
  /** The state after the step, but for the stand of its thread. */
  readonly words: number[];
}

class Explorer implements WordKinds {
  readonly forgets: boolean;
  readonly #model: Model;
  readonly #programs: readonly Program[];
  readonly #shared: Set<number>;
  readonly #slots = new Map<number, number>();
  readonly #stands: Stand[][];
  readonly #standsByKey: Map<string, Stand>[];
  /** Of each state: the words, the number of each thread's stand, its waits that were woken. */
  readonly #states: number[][] = [];
  readonly #statesByKey = new Map<string, number>();
  readonly #steps: number[][] = [];
  /** The state each was first reached from, and by which thread's step. */
  readonly #cameFrom: { readonly state: number; readonly text: string }[] = [];
  readonly #wordCount: number;
  #restart = false;
  #failure: Failure | undefined;

  constructor(model: Model, shared: Set<number>) {
    this.#model = model;
    this.forgets = model.forgets ?? true;
    this.#programs = Object.values(model.threads);
    this.#shared = shared;
    for (const index of shared) this.#slots.set(index, this.#slots.size);
    this.#wordCount = this.#slots.size;
    this.#stands = this.#programs.map(() => []);
    this.#standsByKey = this.#programs.map(() => new Map<string, Stand>());
  }

  isShared(index: number): boolean {
    return this.#slots.has(index);
  }

  initial(index: number): number {
    return this.#model.initial?.[index] ?? 0;
  }

  share(index: number): void {
    if (this.#slots.has(index)) return;
    this.#shared.add(index);
    this.#restart = true;
  }

  async explore(): Promise<Exploration> {
    const words = [...this.#slots.keys()].map((index) => this.initial(index));
    const stands = await Promise.all(
      this.#programs.map(async (program, thread) =>
        this.#intern(thread, await ThreadMemory.run(program, [], this)),
      ),
    );
    const state = [
      ...words,
      ...stands.map(({ number }) => number),
      ...stands.map(() => 0),
      this.#model.spuriousWakes ?? 0,
    ];
    this.#add(state, -1, '');
    for (let done = 0; done < this.#states.length && !this.#isStopped();) {
      const level = this.#states.length;
      const steps: Step[] = [];
      for (; done < level && !this.#isStopped(); done++) this.#collect(done, steps);
      await this.#learn(steps);
      for (const step of steps) if (!this.#isStopped()) this.#take(step);
      if (this.#states.length > maxStates) throw new Error('the model is too large to explore');
    }
    const interleavings = this.#isStopped() ? 0n : this.#count();
    return {
      threads: this.#programs.length,
      states: this.#states.length,
      interleavings: this.#failure === undefined ? interleavings : 0n,
      failure: this.#failure,
    };
  }

  #isStopped(): boolean {
    return this.#restart || this.#failure !== undefined;
  }

  /** Adds the steps that can be taken from a state; notes what is wrong with it. */
  #collect(from: number, steps: Step[]): void {
    const state = this.#states[from];
    const before = steps.length;
    let atEnd = true;
    for (let thread = 0; thread < this.#programs.length; thread++) {
      const stand = this.#standIn(state, thread);
      const { action } = stand;
      switch (action.kind) {
        case 'failed':
          this.#fail('threw', messageOf(action.error), from);
          return;
        case 'finished':
          break;
        case 'waiting':
          atEnd = false;
          this.#collectWakes(from, stand, steps);
          break;
        case 'operation':
          atEnd = false;
          this.#collectOperation(from, stand, action.operation, steps);
      }
    }
    if (steps.length > before) return;
    if (atEnd) this.#checkEnd(from);
    else this.#fail('stuck', this.#whoIsStuck(state), from);
  }

  #collectWakes(from: number, stand: Stand, steps: Step[]): void {
    const state = this.#states[from];
    const woken = state[this.#wokenAt(stand.thread)];
    const poisoned = this.#isPoisoned(state);
    for (let wait = 0; wait < stand.waits.length; wait++) {
      const isWoken = ((woken >> wait) & 1) !== 0;
      const isSpurious = !isWoken && !poisoned;
      if (isSpurious && state.at(-1) === 0) continue;
      const words = [...state];
      // The waits after this one move up.
      const low = (1 << wait) - 1;
      words[this.#wokenAt(stand.thread)] = (woken & low) | ((woken >> 1) & ~low);
      if (isSpurious) words[words.length - 1]--;
      steps.push({ from, stand, event: { kind: 'wake', wait, fails: poisoned }, words });
    }
  }

  #collectOperation(from: number, stand: Stand, operation: Operation, steps: Step[]): void {
    const words = [...this.#states[from]];
    const value = this.#perform(operation, words);
    if (value === undefined) return;
    steps.push({ from, stand, event: { kind: 'result', value }, words });
  }

  /** Changes a state as an operation does. @returns what it gives, or undefined while it blocks */
  #perform({ kind, index, a, b }: Operation, state: number[]): number | undefined {
    const slot = this.#slots.get(index) ?? -1;
    const old = state[slot];
    switch (kind) {
      case 'load':
        return old;
      case 'store':
        state[slot] = a | 0;
        return Outcome.done;
      case 'add':
        state[slot] = (old + a) | 0;
        return old;
      case 'or':
        state[slot] = old | a;
        return old;
      case 'clear':
        state[slot] = old & ~a;
        return old;
      case 'exchange':
        state[slot] = a | 0;
        return old;
      case 'compareExchange':
        if (old === (a | 0)) state[slot] = b | 0;
        return old;
      case 'pause':
        if (old !== a) return Outcome.done;
        return this.#isPoisoned(state) ? Outcome.poisoned : undefined;
      case 'wait':
        if (this.#isPoisoned(state)) return Outcome.poisoned;
        return old === a ? Outcome.blocked : Outcome.done;
      case 'notify':
        this.#wake(index, state);
        return Outcome.done;
    }
  }

  #wake(index: number, state: number[]): void {
    for (let thread = 0; thread < this.#programs.length; thread++) {
      const { waits } = this.#standIn(state, thread);
      for (let wait = 0; wait < waits.length; wait++) {
        if (waits[wait] === index) state[this.#wokenAt(thread)] |= 1 << wait;
      }
    }
  }

  /** Runs the programs on for those steps whose consequences are not known yet. */
  async #learn(steps: readonly Step[]): Promise<void> {
    if (this.#isStopped()) return;
    const asked = new Set<string>();
    const runs: Promise<void>[] = [];
    for (const { stand, event } of steps) {
      const key = keyOf(event);
      const question = `${stand.thread} ${stand.number} ${key}`;
      if (stand.next.has(key) || asked.has(question)) continue;
      asked.add(question);
      const program = this.#programs[stand.thread];
      const run = ThreadMemory.run(program, [...stand.history, event], this);
      runs.push(
        run.then((learnt) => {
          stand.next.set(key, this.#intern(stand.thread, learnt));
        }),
      );
    }
    await Promise.all(runs);
  }

  #take({ from, stand, event, words }: Step): void {
    const { thread } = stand;
    words[this.#wordCount + thread] = stand.next.get(keyOf(event))!.number;
    const key = words.join();
    let to = this.#statesByKey.get(key);
    to ??= this.#add(words, from, this.#describe(stand, event), key);
    this.#steps[from].push(to);
  }

  #add(state: number[], from: number, text: string, key = state.join()): number {
    const number = this.#states.push(state) - 1;
    this.#statesByKey.set(key, number);
    this.#steps.push([]);
    this.#cameFrom.push({ state: from, text });
    return number;
  }

  #intern(thread: number, run: Run): Stand {
    const known = this.#standsByKey[thread].get(run.key);
    if (known !== undefined) return known;
    const number = this.#stands[thread].length;
    const stand: Stand = { ...run, thread, number, next: new Map() };
    this.#stands[thread].push(stand);
    this.#standsByKey[thread].set(run.key, stand);
    return stand;
  }

  #checkEnd(state: number): void {
    const words = this.#states[state];
    const results = this.#programs.map((_, thread) => {
      const { action } = this.#standIn(words, thread);
      return action.kind === 'finished' ? action.value : undefined;
    });
    try {
      this.#model.atEnd?.((index) => this.#load(words, index), results);
    } catch (error) {
      this.#fail('wrong-end', messageOf(error), state);
    }
  }

  #fail(kind: FailureKind, message: string, state: number): void {
    const schedule: string[] = [];
    for (let at = state; this.#cameFrom[at].state >= 0; at = this.#cameFrom[at].state) {
      schedule.unshift(this.#cameFrom[at].text);
    }
    this.#failure ??= { kind, message, schedule };
  }

  /** Counts the paths from the first state to the ends, each state after those that follow it. */
  #count(): bigint {
    const counts = new Array<bigint | undefined>(this.#states.length);
    const isOpen = new Uint8Array(this.#states.length);
    const path = [0];
    while (path.length > 0) {
      const state = path.at(-1)!;
      const following = this.#steps[state];
      if (isOpen[state] === 0) {
        isOpen[state] = 1;
        for (const next of following) {
          if (isOpen[next] === 1 && counts[next] === undefined) {
            this.#fail('endless', 'the same state comes again', next);
            return 0n;
          }
          if (counts[next] === undefined) path.push(next);
        }
        continue;
      }
      path.pop();
      let sum = following.length === 0 ? 1n : 0n;
      for (const next of following) sum += counts[next]!;
      counts[state] = sum;
    }
    return counts[0]!;
  }

  #standIn(state: readonly number[], thread: number): Stand {
    return this.#stands[thread][state[this.#wordCount + thread]];
  }

  #wokenAt(thread: number): number {
    return this.#wordCount + this.#programs.length + thread;
  }

  #load(state: readonly number[], index: number): number {
    const slot = this.#slots.get(index);
    return slot === undefined ? this.initial(index) : state[slot];
  }

  #isPoisoned(state: readonly number[]): boolean {
    const { poison } = this.#model;
    if (poison === undefined) return false;
    return this.#load(state, poison.index) === poison.value;
  }

  #whoIsStuck(state: readonly number[]): string {
    const stuck: string[] = [];
    Object.keys(this.#model.threads).forEach((name, thread) => {
      const { action, waits } = this.#standIn(state, thread);
      if (action.kind === 'operation') stuck.push(`${name}: ${this.#show(action.operation)}`);
      if (action.kind !== 'waiting') return;
      stuck.push(`${name} waits for ${waits.map((index) => this.#name(index)).join()}`);
    });
    return stuck.join('; ');
  }

  #describe({ thread, action, waits }: Stand, event: Event): string {
    const name = Object.keys(this.#model.threads)[thread];
    if (event.kind === 'wake') return `${name}: wakes at ${this.#name(waits[event.wait])}`;
    return `${name}: ${this.#show((action as OperationAction).operation)} -> ${event.value}`;
  }

  #show({ kind, index, a, b }: Operation): string {
    const operands: Record<Operation['kind'], readonly number[]> = {
      load: [],
      notify: [],
      store: [a],
      add: [a],
      or: [a],
      clear: [a],
      exchange: [a],
      pause: [a],
      wait: [a],
      compareExchange: [a, b],
    };
    return [kind, this.#name(index), ...operands[kind]].join(' ');
  }

  #name(index: number): string {
    return this.#model.names?.[index] ?? String(index);
  }
}

type OperationAction = Extract<Action, { readonly kind: 'operation' }>;

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
