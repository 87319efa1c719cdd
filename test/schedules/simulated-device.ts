/**
 * A device in memory on which nothing happens by itself: each operation takes effect, and is
 * answered, when the schedule chooses it. So a run is its choices, and the same choices repeat it.
 */
import assert from 'node:assert/strict';
import type fc from 'fast-check';
import { type CowherdError, errorFromErrno } from '../../src/errors.js';
import type { Operation, Ring, RingClient } from '../../src/native/ring.js';
import { acquireRing } from '../../src/native/thread-rings.js';
import { BaseFile } from '../../src/storage/base-file.js';
import type { OperationKind, StorageOperation } from '../../src/storage/filters/filter-file.js';
import { MemoryContent } from '../../src/storage/memory/memory-file.js';
import type { Completion, StorageLimits, StorageStatus } from '../../src/storage/storage.js';

/** Choices after which a run that has not ended is taken for one that never will. */
const mostChoices = 50_000;

/** How a device orders what happens on it. */
export interface DeviceOptions {
  /** Chooses what happens next; without it, what came first does. */
  readonly scheduler?: fc.Scheduler;
  /**
   * For how many choices each operation, by its number, is kept from being chosen: what a fair
   * choice alone would hardly ever keep back for long. Its answer is kept back by the next number.
   */
  readonly delays?: readonly number[];
}

/** An operation that is to fail. */
export interface Fault {
  /** Which one, counting the operations that could change or miss something from 1. */
  readonly nth: number;
  /** Whether it takes effect nevertheless, as a write does whose answer was lost. */
  readonly takesEffect: boolean;
}

/** Operations kept back until they are released. */
export class Hold {
  readonly matches: (operation: StorageOperation) => boolean;
  readonly at: 'effect' | 'answer';
  #released = false;
  #letGo: (() => void)[] = [];
  #onMeet: (() => void)[] = [];
  #met = 0;

  constructor(matches: (operation: StorageOperation) => boolean, at: 'effect' | 'answer') {
    this.matches = matches;
    this.at = at;
  }

  /** How many operations are or were kept back. */
  get met(): number {
    return this.#met;
  }

  /** Keeps the caller back. */
  async pass(): Promise<void> {
    if (this.#released) return;
    this.#met += 1;
    for (const tell of this.#onMeet.splice(0)) tell();
    await new Promise<void>((resolve) => this.#letGo.push(resolve));
  }

  /** Resolves once an operation is kept back. */
  async meeting(): Promise<void> {
    if (this.#met === 0) await new Promise<void>((resolve) => this.#onMeet.push(resolve));
  }

  /** Lets go what is kept back, and everything later. */
  release(): void {
    this.#released = true;
    for (const resolve of this.#letGo.splice(0)) resolve();
  }
}

/** What one file holds after a power cut, and what it might hold besides. */
interface Unsynced {
  readonly apply: (content: MemoryContent) => unknown;
  answered: boolean;
}

/** The bytes of a file on the device: as they read, and as a power cut would leave them. */
class DeviceContent {
  readonly live: MemoryContent;
  readonly #durable: MemoryContent;
  #unsynced: Unsynced[] = [];

  constructor(content: MemoryContent) {
    this.live = content;
    this.#durable = content.clone();
  }

  note(apply: (content: MemoryContent) => unknown): Unsynced {
    const change = { apply, answered: false };
    this.#unsynced.push(change);
    return change;
  }

  /** What a flush that begins now has to make durable. */
  get answered(): ReadonlySet<Unsynced> {
    return new Set(this.#unsynced.filter(({ answered }) => answered));
  }

  sync(changes: ReadonlySet<Unsynced>): void {
    for (const change of this.#unsynced) if (changes.has(change)) change.apply(this.#durable);
    this.#unsynced = this.#unsynced.filter((change) => !changes.has(change));
  }

  afterPowerCut(survives: (index: number, count: number) => boolean): MemoryContent {
    const content = this.#durable.clone();
    for (const [index, change] of this.#unsynced.entries()) {
      if (survives(index, this.#unsynced.length)) change.apply(content);
    }
    return content;
  }
}

/** See the file's comment. */
export class SimulatedDevice {
  /** The operation that is to fail, while there is one. */
  fault: Fault | undefined;
  /** Called between choices. */
  onChoice: (() => void) | undefined;
  readonly #scheduler: fc.Scheduler | undefined;
  readonly #delays: readonly number[];
  readonly #first: (() => void)[] = [];
  #late: { readonly due: number; readonly arrive: () => void }[] = [];
  #holds: Hold[] = [];
  #choices = 0;
  #operations = 0;
  #failable = 0;
  #begun = 0;
  #answered = 0;
  /** Conversions of compressed clusters that threads of their own are busy with. */
  #converting = 0;

  constructor({ scheduler, delays = [] }: DeviceOptions = {}) {
    this.#scheduler = scheduler;
    this.#delays = delays;
  }

  /** Choices made so far. */
  get choices(): number {
    return this.#choices;
  }

  /** Operations begun so far. */
  get begun(): number {
    return this.#begun;
  }

  /** Operations that have begun and have not been answered. */
  get underWay(): number {
    return this.#begun - this.#answered;
  }

  /** Operations so far that a fault could have met. */
  get failable(): number {
    return this.#failable;
  }

  /** Keeps operations back: before their effect, or between it and the answer. */
  hold(
    matches: (operation: StorageOperation) => boolean,
    at: 'effect' | 'answer' = 'effect',
  ): Hold {
    const hold = new Hold(matches, at);
    this.#holds.push(hold);
    return hold;
  }

  /** Resolves when the schedule has chosen it. */
  chosen(label: string, delay = 0): Promise<void> {
    return new Promise((resolve) => {
      const arrive = (): void => {
        if (this.#scheduler === undefined) this.#first.push(resolve);
        else void this.#scheduler.schedule(Promise.resolve(), label).then(resolve);
      };
      if (delay === 0) arrive();
      else this.#late.push({ due: this.#choices + delay, arrive });
    });
  }

  /** Does an operation on a file: its effect when chosen, its answer when chosen again. */
  async perform<Result>(
    file: SimulatedFile,
    operation: StorageOperation,
    effect: (content: MemoryContent) => Result,
  ): Promise<Result> {
    this.#begun += 1;
    const { kind, offset, length } = operation;
    const name = `${file.filename} ${kind} ${length} at ${offset}`;
    const { bytes } = file;
    const covered = kind === 'flush' ? bytes.answered : undefined;
    const hold = this.#holds.find((candidate) => candidate.matches(operation));
    if (hold?.at === 'effect') await hold.pass();
    await this.chosen(name, this.#nextDelay());
    const fault = this.#failing(operation);
    let result: Result | undefined;
    let change: Unsynced | undefined;
    if (fault === undefined || fault.takesEffect) {
      result = effect(bytes.live);
      if (covered !== undefined) bytes.sync(covered);
      else if (changesContent.has(kind)) change = bytes.note(effect);
    }
    if (hold?.at === 'answer') await hold.pass();
    await this.chosen(`${name} answered`, this.#nextDelay());
    this.#answered += 1;
    if (fault !== undefined) throw injected(file.filename, operation);
    if (change !== undefined) change.answered = true;
    return result as Result;
  }

  /**
   * Makes choices until the work has ended.
   *
   * @throws if nothing is left to choose and the work still has not ended
   */
  async drive<Result>(work: Promise<Result>): Promise<Result> {
    const progress = { ended: false };
    const end = (): void => {
      progress.ended = true;
    };
    work.then(end, end);
    const unhandled: unknown[] = [];
    const collect = (reason: unknown): void => {
      unhandled.push(reason);
    };
    const restore = this.#takeClockAndCodecs();
    process.on('unhandledRejection', collect);
    try {
      for (;;) {
        await this.#settle();
        if (unhandled.length > 0) throw unhandled[0];
        if (progress.ended) return await work;
        this.onChoice?.();
        if (!(await this.#next())) {
          assert.fail(
            `deadlock: nothing left to choose after ${this.#choices} choices, and the run has not ended`,
          );
        }
        assert.ok(this.#choices < mostChoices, `no end after ${mostChoices} choices`);
      }
    } finally {
      process.off('unhandledRejection', collect);
      restore();
    }
  }

  /** Lets everything go on that waits for no choice. */
  async #settle(): Promise<void> {
    for (let turn = 0; turn < 3 || this.#converting > 0; turn++) await nextTurn();
  }

  /** Makes one choice. @returns false if there is none */
  async #next(): Promise<boolean> {
    this.#choices += 1;
    const due = this.#late.filter((late) => late.due <= this.#choices);
    this.#late = this.#late.filter((late) => late.due > this.#choices);
    for (const { arrive } of due) arrive();
    if (this.#ready === 0) {
      const earliest = Math.min(...this.#late.map((late) => late.due));
      const at = this.#late.findIndex((late) => late.due === earliest);
      if (at < 0) return false;
      for (const { arrive } of this.#late.splice(at, 1)) arrive();
    }
    if (this.#scheduler === undefined) this.#first.shift()?.();
    else await this.#scheduler.waitNext(1);
    return true;
  }

  get #ready(): number {
    return this.#scheduler?.count() ?? this.#first.length;
  }

  #nextDelay(): number {
    const number = this.#operations++;
    return this.#delays.length === 0 ? 0 : this.#delays[number % this.#delays.length];
  }

  #failing(operation: StorageOperation): Fault | undefined {
    if (!failing.has(operation.kind)) return undefined;
    this.#failable += 1;
    return this.fault?.nth === this.#failable ? this.fault : undefined;
  }

  /** Makes timers and the codecs' answers choices too. @returns what undoes that */
  #takeClockAndCodecs(): () => void {
    const clock = globalThis.setTimeout;
    const timer = (callback: () => void): void => {
      void this.chosen('timer').then(callback);
    };
    globalThis.setTimeout = timer as unknown as typeof setTimeout;
    const codecs = codecRing();
    if (codecs !== undefined) {
      const convert = codecs.convert.bind(codecs);
      codecs.convert = (client, token, ...rest) => {
        this.#converting += 1;
        convert(new ChosenAnswer(client, this.#converted), token, ...rest);
      };
    }
    return () => {
      globalThis.setTimeout = clock;
      if (codecs !== undefined) Reflect.deleteProperty(codecs, 'convert');
    };
  }

  readonly #converted = (answer: () => void): void => {
    void this.chosen('codec').then(answer);
    this.#converting -= 1;
  };
}

/** Passes a codec's answer on when it is chosen. */
class ChosenAnswer<Token> implements RingClient<Token> {
  readonly #client: RingClient<Token>;
  readonly #ended: (answer: () => void) => void;

  constructor(client: RingClient<Token>, ended: (answer: () => void) => void) {
    this.#client = client;
    this.#ended = ended;
  }

  requestEnded(token: Token, result: number, operation: Operation, offset: number): void {
    this.#ended(() => {
      this.#client.requestEnded(token, result, operation, offset);
    });
  }
}

let codecs: Ring | undefined;

/** The ring that codecs of this thread share, where there is an addon. */
function codecRing(): Ring | undefined {
  if (codecs === undefined) {
    const ring = acquireRing('threads');
    if (typeof ring !== 'number') codecs = ring;
  }
  return codecs;
}

/** Whether compressed clusters can be read and written in a run that repeats. */
export function codecsCanBeChosen(): boolean {
  return codecRing() !== undefined;
}

const changesContent: ReadonlySet<OperationKind> = new Set([
  'write',
  'truncate',
  'allocate',
  'writeZeroes',
  'discard',
]);
const failing: ReadonlySet<OperationKind> = new Set([...changesContent, 'read', 'flush']);

function injected(filename: string, { kind, offset }: StorageOperation): CowherdError {
  return errorFromErrno('EIO', `Injected fault: ${kind} of '${filename}' at byte ${offset}`, {
    filename,
    offset,
  });
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A file on a simulated device. Queues opened from one file share its content. */
export class SimulatedFile extends BaseFile {
  readonly protocol = 'simulated';
  readonly limits: StorageLimits;
  readonly bytes: DeviceContent;
  readonly #device: SimulatedDevice;

  /** @param zeroInit whether what the file grows by counts as zero */
  constructor(
    filename: string,
    device: SimulatedDevice,
    content: MemoryContent | DeviceContent,
    zeroInit = true,
  ) {
    super(filename, false);
    this.#device = device;
    this.bytes = content instanceof MemoryContent ? new DeviceContent(content) : content;
    this.limits = { requestAlignment: 1, zeroInit, detectsHoles: true, blockDevice: false };
  }

  openQueue(): SimulatedFile {
    return new SimulatedFile(this.filename, this.#device, this.bytes, this.limits.zeroInit);
  }

  size(): Promise<number> {
    return this.#perform('size', 0, 0, (content) => content.size);
  }

  allocatedSize(): Promise<number> {
    return this.#perform('size', 0, 0, (content) => content.allocatedSize);
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.#complete(completion, this.doReadVector([buffer], offset));
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.#complete(completion, this.doWriteVector([buffer], offset));
  }

  protected doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    return this.#perform('read', offset, lengthOf(buffers), (content) => {
      forEachAt(buffers, offset, (buffer, at) => {
        content.read(buffer, at);
      });
    });
  }

  /** The bytes are taken when the write takes effect, as a device does. */
  protected doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    let taken: readonly Uint8Array[] | undefined;
    return this.#perform('write', offset, lengthOf(buffers), (content) => {
      taken ??= buffers.map((buffer) => buffer.slice());
      forEachAt(taken, offset, (buffer, at) => {
        content.write(buffer, at);
      });
    });
  }

  protected doFlush(): Promise<void> {
    return this.#perform('flush', 0, 0, () => undefined);
  }

  protected doTruncate(size: number): Promise<void> {
    return this.#perform('truncate', size, 0, (content) => {
      content.truncate(size);
    });
  }

  protected doAllocate(offset: number, length: number): Promise<void> {
    return this.#perform('allocate', offset, length, (content) => {
      content.extend(offset + length);
    });
  }

  protected doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#perform('writeZeroes', offset, length, (content) => {
      content.extend(offset + length);
      if (unmap) content.punch(offset, length);
      else content.write(new Uint8Array(length), offset);
    });
  }

  protected doDiscard(offset: number, length: number): Promise<boolean> {
    return this.#perform('discard', offset, length, (content) => {
      content.punch(offset, length);
      return true;
    });
  }

  protected doStatus(offset: number, length: number): Promise<StorageStatus> {
    return this.#perform('status', offset, length, (content) => content.status(offset, length));
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected doClose(): Promise<void> {
    return this.#perform('close', 0, 0, () => undefined);
  }

  #perform<Result>(
    kind: OperationKind,
    offset: number,
    length: number,
    effect: (content: MemoryContent) => Result,
  ): Promise<Result> {
    return this.#device.perform(this, { kind, offset, length }, effect);
  }

  #complete(completion: Completion, work: Promise<void>): void {
    const end = (error: CowherdError | null): void => {
      this.end();
      completion.complete(error);
    };
    void work.then(() => {
      end(null);
    }, end);
  }
}

function lengthOf(buffers: readonly Uint8Array[]): number {
  return buffers.reduce((total, buffer) => total + buffer.length, 0);
}

function forEachAt(
  buffers: readonly Uint8Array[],
  offset: number,
  visit: (buffer: Uint8Array, at: number) => void,
): void {
  let at = offset;
  for (const buffer of buffers) {
    visit(buffer, at);
    at += buffer.length;
  }
}
