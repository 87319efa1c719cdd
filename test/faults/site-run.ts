/** One run of a guest's workload in which one operation of the device fails, and its judgement. */
import type { OpenedImage } from '../../src/image/graph/opened-image.js';
import type { RequestTarget } from '../../src/image/api/image.js';
import { CowherdError } from '../../src/errors.js';
import { LogClock } from '../../src/storage/filters/crash-log.js';
import { FaultFile, FaultPlan, operationKinds } from '../../src/storage/filters/fault.js';
import {
  FilterFile,
  type OperationKind,
  type StorageOperation,
} from '../../src/storage/filters/filter-file.js';
import {
  type MemoryContent,
  MemoryFile,
  type Schedule,
} from '../../src/storage/memory/memory-file.js';
import type { StorageFile, StorageLimits } from '../../src/storage/storage.js';
import { bytesOf, contentOf, openOver } from '../crash/open-over.js';
import { Promises } from '../crash/promises.js';
import { dataName, realCheck } from '../crash/real-tools.js';
import { type Start, drawnSchedule } from '../crash/recording.js';
import { Referee, type Verdict, markedBelow } from '../crash/referee.js';
import { backingMark, sectorSize } from '../schedules/history.js';
import { Random } from '../stress/random.js';
import type { FaultKind } from './fault-kinds.js';
import { FaultedDisk } from './faulted-disk.js';
import type { FaultedWorkload } from './workloads.js';
import { noUnhandled, within } from './watch.js';

/** What a run with one fault did. */
export interface SiteOutcome {
  /** The operation that the fault struck first; undefined if the run had no such site. */
  readonly struck: StorageOperation | undefined;
  /** Operations that reached the files, one after the other. */
  readonly operations: readonly OperationKind[];
  /** During what. */
  readonly phase: Phase;
  readonly requests: number;
  readonly failedRequests: number;
  /** Clusters left over in the closed image. */
  readonly leaks: number;
  readonly problems: readonly string[];
  /** Whether qemu-img has looked at it too. */
  readonly real: boolean;
}

/** Parts of a run. */
export type Phase = 'open' | 'requests' | 'close';

/** How a run is judged. */
export interface Judging {
  /** Whether the engine checks the image left behind, and the real tool. */
  readonly engine: boolean;
  readonly real: boolean;
  /** Whether the real tool is there, for what looks suspicious. */
  readonly hasTool: boolean;
}

const mostProblems = 6;

interface Fired {
  readonly operation: StorageOperation;
  readonly error: CowherdError | undefined;
  readonly time: number;
}

/** Queues of files that are open, and everything that was done to them. */
interface OpenCount {
  count: number;
  readonly operations: OperationKind[];
}

/** The innermost file: knows how many queues of it are open. */
class CountedFile extends FilterFile {
  readonly #open: OpenCount;
  readonly #zeroInit: boolean;
  #closed = false;

  constructor(inner: StorageFile, open: OpenCount, zeroInit: boolean) {
    super(inner);
    this.#open = open;
    this.#zeroInit = zeroInit;
    open.count++;
  }

  override get limits(): StorageLimits {
    return { ...super.limits, zeroInit: this.#zeroInit };
  }

  openQueue(): CountedFile {
    return new CountedFile(this.inner.openQueue(), this.#open, this.#zeroInit);
  }

  protected intercept({ kind }: StorageOperation): undefined {
    this.#open.operations.push(kind);
    if (kind !== 'close' || this.#closed) return;
    this.#closed = true;
    this.#open.count--;
  }
}

/** Runs a workload with a fault at its `site`-th operation; with 0 nothing fails. */
export async function runSite(
  workload: FaultedWorkload,
  start: Start,
  seed: number,
  site: number,
  fault: FaultKind,
  judging: Judging,
): Promise<SiteOutcome> {
  const run = new SiteRun(workload, start, seed, site, fault, judging);
  const { result, unhandled } = await noUnhandled(() => run.run());
  const problems = unhandled.map((reason) => `unhandled: ${describe(reason)}`);
  return { ...result, problems: [...result.problems, ...problems] };
}

class SiteRun {
  readonly #workload: FaultedWorkload;
  readonly #start: Start;
  readonly #fault: FaultKind;
  readonly #judging: Judging;
  readonly #clock = new LogClock();
  readonly #plan: FaultPlan;
  readonly #promises: Promises;
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #content: MemoryContent;
  readonly #data: MemoryContent | undefined;
  readonly #open: OpenCount = { count: 0, operations: [] };
  readonly #fired: Fired[] = [];
  readonly #problems: string[] = [];
  #real = false;
  /** Operations up to the end of closing. */
  #sites: readonly OperationKind[] = [];
  #phase: Phase = 'open';
  #firedIn: Phase | undefined;
  #disk: FaultedDisk | undefined;

  constructor(
    workload: FaultedWorkload,
    start: Start,
    seed: number,
    site: number,
    fault: FaultKind,
    judging: Judging,
  ) {
    this.#workload = workload;
    this.#start = start;
    this.#fault = fault;
    this.#judging = judging;
    this.#content = contentOf(start.content);
    this.#data = start.data && contentOf(start.data);
    this.#promises = new Promises(
      this.#clock,
      start.marks,
      start.marks.reduce((most, mark) => Math.max(most, mark), backingMark),
    );
    this.#random = new Random(seed);
    this.#schedule = drawnSchedule(new Random(seed ^ 0x5bd1e995));
    this.#plan = new FaultPlan({
      kinds: operationKinds,
      ...fault.options,
      nth: site,
      onFault: (operation, error) => {
        this.#firedIn ??= this.#phase;
        this.#fired.push({ operation, error, time: this.#clock.tick() });
      },
    });
    if (site === 0) this.#plan.lift();
  }

  async run(): Promise<SiteOutcome> {
    let leaks = 0;
    try {
      leaks = await this.#runAndJudge();
    } catch (error) {
      this.#problems.push(describe(error));
    }
    const { requests = 0, failed = [] } = this.#disk ?? {};
    return {
      struck: this.#fired[0]?.operation,
      operations: this.#sites,
      phase: this.#firedIn ?? 'close',
      requests,
      failedRequests: failed.length,
      leaks,
      problems: this.#problems,
      real: this.#real,
    };
  }

  async #runAndJudge(): Promise<number> {
    const image = await this.#openImage();
    this.#phase = 'requests';
    const queues: RequestTarget[] = [image];
    while (queues.length < (this.#workload.queues ?? 1)) queues.push(await image.openQueue());
    const perCluster = image.clusterSize! / sectorSize;
    const disk = new FaultedDisk(queues, this.#promises, this.#clock, this.#random, perCluster);
    this.#disk = disk;
    await this.#mustEnd('the workload', this.#workload.run(disk));
    const struck = this.#fired.length > 0;
    if (struck) this.#judgeFailed(disk);
    if (struck && !this.#fault.givenUp) {
      this.#plan.lift();
      await this.#useAgain(disk);
    }
    this.#phase = 'close';
    const begun = this.#clock.tick();
    const closing = await within('closing', image.close());
    if (closing.status === 'fulfilled') this.#promises.noteFlush(begun);
    else this.#judgeError('closing', closing.reason);
    if (this.#open.count > 0) this.#object(`${this.#open.count} queues of files were left open`);
    const isClean = closing.status === 'fulfilled';
    this.#sites = this.#open.operations.slice();
    this.#plan.lift();
    return this.#judgeFile(isClean);
  }

  /** Opens the image; if that fails, once more without the fault. */
  async #openImage(): Promise<OpenedImage> {
    const first = await within('opening', this.#tryOpen());
    if (first.status === 'fulfilled') return first.value;
    this.#judgeError('opening', first.reason);
    this.#plan.lift();
    return this.#tryOpen();
  }

  async #tryOpen(): Promise<OpenedImage> {
    const { zeroInit = true, cacheBytes = 0 } = this.#workload;
    const opened: StorageFile[] = [];
    const wrap = (file: StorageFile): StorageFile => {
      const wrapped = new FaultFile(new CountedFile(file, this.#open, zeroInit), this.#plan);
      opened.push(wrapped);
      return wrapped;
    };
    const memory = (name: string, content: MemoryContent): StorageFile =>
      wrap(new MemoryFile(name, { content, schedule: this.#schedule }));
    const file = memory('disk.qcow2', this.#content);
    const dataFile = this.#data && memory(dataName, this.#data);
    const { backing } = this.#start;
    try {
      return await openOver({ file, dataFile, backing, wrapBacking: wrap, cacheBytes });
    } catch (error) {
      // Whoever opens over files has to close them if that fails.
      for (const each of opened) await each.close().catch(() => undefined);
      throw error;
    }
  }

  /** What failed must have had a reason, and what had none must have succeeded. */
  #judgeFailed(disk: FaultedDisk): void {
    const first = this.#fired[0];
    // Who came before may have waited for the same work; who came later must not hear of it.
    const told = Math.min(...disk.failed.map(({ ended }) => ended));
    for (const { name, error, begun } of disk.failed) {
      this.#judgeError(name, error);
      if (begun > told && this.#fault.options.forever !== true) {
        this.#object(`${name} began after the fault was told of, and failed: ${describe(error)}`);
      }
    }
    if (this.#fault.options.forever === true || this.#firedIn !== 'requests') return;
    const owner = disk.ownerOf(first.operation.buffers ?? []);
    if (this.#fault.options.effect === 'delay') return;
    const names = disk.failed.map(({ name }) => name);
    // What is short of space is tried once more, with the space that was given up, before it is told.
    if (this.#fault.options.errno === 'ENOSPC' && names.length === 0) return;
    if (owner !== undefined) {
      if (names.length !== 1 || names[0] !== owner) {
        this.#object(`only ${owner} was concerned, but these failed: ${names.join(', ')}`);
      }
    } else if (
      names.length === 0 &&
      first.operation.kind !== 'read' &&
      this.#workload.hasExclusiveChanges !== true &&
      this.#workload.hasChangingBitmaps !== true
    ) {
      // What is read to give something back may be read again later, and what follows from a change of snapshots
      // or bitmaps is done again later: the leaks, and the flags, will tell.
      this.#object('nobody was told of the fault');
    }
  }

  /** Without the fault: what failed succeeds, and what succeeded is there. */
  async #useAgain(disk: FaultedDisk): Promise<void> {
    const { failed } = disk;
    for (const { name, again } of failed) await this.#mustSucceed(`${name}, again`, again());
    const before = failed.length;
    const most = Math.min(disk.sectorsPerCluster + 1, disk.sectors);
    await this.#mustEnd('using the image again', useAll(disk, most));
    for (const { name, error } of failed.slice(before)) {
      this.#object(`${name} failed without a fault: ${describe(error)}`);
    }
    for (const problem of disk.problems) this.#object(problem);
  }

  /** Judges what a closed image left. @returns its leaked clusters */
  async #judgeFile(isClean: boolean): Promise<number> {
    const image = bytesOf(this.#content);
    const data = this.#data && bytesOf(this.#data);
    const permitted = isClean
      ? Array.from(this.#start.marks, (_, sector) =>
          this.#promises.permittedTo(sector, this.#clock.now, this.#clock.now),
        )
      : this.#promises.permittedAt(this.#clock.now);
    const files = {
      image,
      imageSize: image.length,
      data,
      dataSize: data?.length ?? 0,
    };
    const verdict: Verdict = new Referee(files).judge({
      permitted,
      backing: markedBelow(this.#workload.backedSectors ?? 0, backingMark),
      snapshotMarks: this.#start.snapshotMarks,
      hasExclusiveChanges: this.#workload.hasExclusiveChanges,
      since: this.#workload.hasBitmap ? this.#start.marks : undefined,
      isClosed: isClean,
    });
    for (const problem of verdict.problems) this.#object(problem);
    if (isClean && verdict.dirty) this.#object('closed, and yet dirty');
    if (isClean && verdict.leaks > 0) this.#object(`closed, and ${verdict.leaks} clusters leaked`);
    if (this.#judging.real || (this.#judging.hasTool && verdict.problems.length > 0)) {
      this.#real = true;
      const bytes = { image, data, backing: this.#start.backing };
      const { objection } = await realCheck(bytes, verdict.dirty);
      if (objection !== undefined) this.#object(objection);
    }
    if (this.#judging.engine) await this.#judgeByEngine(isClean);
    return verdict.leaks;
  }

  /** The engine itself reads all of the disk and checks it. */
  async #judgeByEngine(isClean: boolean): Promise<void> {
    const image = await this.#tryOpen();
    const disk = new FaultedDisk([image], this.#promises, this.#clock, this.#random, 1);
    if (isClean) await disk.readAll();
    for (const { name, error } of disk.failed) this.#object(`${name}: ${describe(error)}`);
    for (const problem of disk.problems) this.#object(`opened again, ${problem}`);
    const { corruptions, checkErrors } = await image.check();
    if (corruptions > 0 || checkErrors > 0) {
      this.#object(`the check finds ${corruptions} corruptions, ${checkErrors} errors`);
    }
    await image.close();
  }

  /** An error must be one of ours, name the file, and stem from the fault. */
  #judgeError(what: string, error: unknown): void {
    if (!(error instanceof CowherdError)) {
      this.#object(`${what} failed with ${describe(error)}`);
      return;
    }
    if (error.filename === undefined || !error.message.includes(error.filename)) {
      this.#object(`${what}: the error names no file: ${error.message}`);
    }
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      if (this.#fired.some((fired) => fired.error === cause)) return;
    }
    this.#object(`${what} failed for another reason: ${error.message}`);
  }

  async #mustEnd(what: string, work: Promise<void>): Promise<void> {
    const end = await within(what, work);
    if (end.status === 'rejected') this.#object(`${what} failed: ${describe(end.reason)}`);
  }

  async #mustSucceed(what: string, work: Promise<void>): Promise<void> {
    const end = await within(what, work);
    if (end.status === 'rejected') this.#object(`${what} failed: ${describe(end.reason)}`);
  }

  #object(problem: string): void {
    if (this.#problems.length < mostProblems) this.#problems.push(problem);
  }
}

/** Requests that touch what the workload touched, then reads of all. */
async function useAll(disk: FaultedDisk, most: number): Promise<void> {
  for (const queue of disk.queues.keys()) await disk.flush(queue);
  await disk.readAll();
  await disk.write(1, most, 0);
  await disk.discard(0, disk.sectorsPerCluster, disk.queues.length - 1);
  await disk.write(disk.sectors - most, most, disk.queues.length - 1);
  await disk.flush();
  await disk.write(0, 1, 0);
  await disk.readAll();
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error instanceof CowherdError ? error.message : (error.stack ?? error.message);
}
