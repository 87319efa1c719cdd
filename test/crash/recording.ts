/**
 * Runs a workload once, over files in memory whose operations end in an order drawn by a seed, and
 * keeps what the crash logs and the promises to the guest say of it.
 */
import { decideCreateOptions } from '../../src/format/qcow2/change/create-options.js';
import type { Image, RequestTarget } from '../../src/image/api/image.js';
import type { AmendOptions, CreateOptions } from '../../src/image/api/options.js';
import { createQcow2 } from '../../src/format/qcow2/change/create.js';
import type { CheckReport } from '../../src/format/check.js';
import { checkQcow2 } from '../../src/format/qcow2/check/check.js';
import { type Qcow2Image, readQcow2Header } from '../../src/format/qcow2/image.js';
import { CrashLog, CrashLogFile, LogClock } from '../../src/storage/filters/crash-log.js';
import { MemoryContent, MemoryFile, type Schedule } from '../../src/storage/memory/memory-file.js';
import type { StorageFile, StorageLimits } from '../../src/storage/storage.js';
import { backingMark, fillSectors, type Mark, sectorSize } from '../schedules/history.js';
import { Random } from '../stress/random.js';
import { bytesOf, contentOf, openOver } from './open-over.js';
import { resizeInTurn } from '../support/resize-in-turn.js';
import type { Damage } from './damage.js';
import { markAt } from './marks.js';
import { type GuestChange, Promises } from './promises.js';
import { dataName, withRealSnapshot } from './real-tools.js';

/** What runs on a disk, and on which. */
export interface Workload {
  readonly name: string;
  readonly image: CreateOptions;
  /** Size of the disk in sectors. */
  readonly sectors: number;
  readonly queues?: number;
  /** Sectors that a raw backing file holds, from the first one on. */
  readonly backedSectors?: number;
  readonly dataFile?: boolean;
  /** Whether what the files grow by is said to read as zeroes; it is by default. */
  readonly zeroInit?: boolean;
  /** Whether clusters are reserved ahead; they are by default. */
  readonly reserveAhead?: boolean;
  /** Whether `run` changes the image as a whole: takes snapshots, goes back to them or gives them up, or amends it. */
  readonly hasExclusiveChanges?: boolean;
  /** Whether `run` adds, changes or removes bitmaps. */
  readonly hasChangingBitmaps?: boolean;
  /** Whether `before` ends with a bitmap `since` that is enabled from then on. */
  readonly hasBitmap?: boolean;
  /** Whether the real tool takes a snapshot after `before`. */
  readonly snapshot?: boolean;
  /** Done and closed before the recording; each sector must show one thing afterwards. */
  readonly before?: (disk: GuestDisk) => Promise<void>;
  /** The same, once the snapshot has been taken. */
  readonly sinceSnapshot?: (disk: GuestDisk) => Promise<void>;
  /** What is recorded, where that is not the repair of the damaged image. */
  readonly run?: (disk: GuestDisk) => Promise<void>;
  /** Done to the image before its repair. */
  readonly damage?: Damage;
}

/** One file of a recorded image. */
export interface RecordedFile {
  /** Its content when the recording began, all of it durable. */
  readonly initial: Uint8Array;
  readonly log: CrashLog;
}

/** What a run did. */
export interface Recording {
  readonly workload: Workload;
  readonly seed: number;
  readonly file: RecordedFile;
  readonly dataFile: RecordedFile | undefined;
  readonly backing: Uint8Array | undefined;
  readonly promises: Promises;
  /** What each sector shows in the snapshot, if there is one. */
  readonly snapshotMarks: Uint32Array | undefined;
}

/** Changes of the machinery, for tests of the tester. */
export interface Sabotage {
  /** Changes the format's parts before anything is done with them. */
  readonly format?: (format: Qcow2Image) => void;
  /** Stands between the engine and the log. */
  readonly wrap?: (file: StorageFile) => StorageFile;
}

/** The guest's side of an open image, as workloads use it. */
export interface GuestDisk {
  readonly queues: readonly unknown[];
  readonly random: Random;
  readonly sectors: number;
  readonly sectorsPerCluster: number;
  read(sector: number, count: number, queue?: number): Promise<void>;
  write(sector: number, count: number, queue?: number): Promise<void>;
  /** Writes one whole cluster compressed. */
  compress(sector: number, queue?: number): Promise<void>;
  zero(sector: number, count: number, unmap: boolean, queue?: number): Promise<void>;
  discard(sector: number, count: number, queue?: number): Promise<void>;
  flush(queue?: number): Promise<void>;
  /** Gives the disk another size, never less than `sectors`. */
  resize(sectors: number): Promise<void>;
  /** Does something to a persistent bitmap; one that is merged takes what `since` has. */
  bitmap(action: BitmapAction, name: string): Promise<void>;
  /** Takes a snapshot, goes back to it or gives it up, while no other request is under way. */
  snapshot(action: SnapshotAction, name: string): Promise<void>;
  /** Has the image be of another kind. */
  amend(options: AmendOptions): Promise<void>;
}

export type SnapshotAction = 'create' | 'apply' | 'delete';
export type BitmapAction = 'add' | 'remove' | 'clear' | 'enable' | 'disable' | 'merge';

/** Does something to a persistent bitmap of an image. */
export function changeBitmap(
  { bitmaps }: Image,
  action: BitmapAction,
  name: string,
): Promise<void> {
  if (action === 'add') return bitmaps.add(name, { granularity: name === 'since' ? 1024 : 512 });
  return action === 'merge' ? bitmaps.merge(name, 'since') : bitmaps[action](name);
}

/** What a disk of so many sectors shows now. */
export async function marksOf(disk: RequestTarget, sectors: number): Promise<Uint32Array> {
  const bytes = new Uint8Array(sectors * sectorSize);
  await disk.read(bytes, 0);
  return Uint32Array.from({ length: sectors }, (_, sector) => {
    const mark = markAt(bytes, sector * sectorSize, sector);
    if (mark === undefined) throw new Error(`sector ${sector} has no mark`);
    return mark;
  });
}

/** Notes that a disk is about to show what it did before. */
export function beginReturn(promises: Promises, marks: Uint32Array): readonly GuestChange[] {
  return Array.from(marks, (mark, sector) => promises.begin(mark, sector, 1, true));
}

/** A disk that keeps what was promised to the guest. */
export class RecordedDisk implements GuestDisk {
  readonly promises: Promises;
  readonly queues: readonly RequestTarget[];
  readonly random: Random;
  readonly sectorsPerCluster: number;
  readonly #clock: LogClock;
  /** What the disk showed when snapshots were taken. */
  readonly #snapshots = new Map<string, Uint32Array>();

  constructor(
    queues: readonly RequestTarget[],
    promises: Promises,
    clock: LogClock,
    random: Random,
    sectorsPerCluster: number,
  ) {
    this.queues = queues;
    this.promises = promises;
    this.#clock = clock;
    this.random = random;
    this.sectorsPerCluster = sectorsPerCluster;
  }

  get sectors(): number {
    return this.promises.sectors;
  }

  async read(sector: number, count: number, queue = 0): Promise<void> {
    await this.queues[queue].read(new Uint8Array(count * sectorSize), sector * sectorSize);
  }

  write(sector: number, count: number, queue = 0): Promise<void> {
    const mark = this.promises.newMark();
    const data = fillSectors(mark, sector, count);
    return this.#change(mark, sector, count, true, () =>
      this.queues[queue].write(data, sector * sectorSize),
    );
  }

  compress(sector: number, queue = 0): Promise<void> {
    const mark = this.promises.newMark();
    const data = fillSectors(mark, sector, this.sectorsPerCluster);
    return this.#change(mark, sector, this.sectorsPerCluster, true, () =>
      this.queues[queue].writeCompressed(data, sector * sectorSize),
    );
  }

  zero(sector: number, count: number, unmap: boolean, queue = 0): Promise<void> {
    return this.#change(0, sector, count, true, () =>
      this.queues[queue].writeZeroes(sector * sectorSize, count * sectorSize, { unmap }),
    );
  }

  discard(sector: number, count: number, queue = 0): Promise<void> {
    return this.#change(0, sector, count, false, () =>
      this.queues[queue].discard(sector * sectorSize, count * sectorSize),
    );
  }

  async flush(queue = 0): Promise<void> {
    const begun = this.#clock.tick();
    await this.queues[queue].flush();
    this.promises.noteFlush(begun);
  }

  bitmap(action: BitmapAction, name: string): Promise<void> {
    return changeBitmap(this.queues[0] as Image, action, name);
  }

  async resize(sectors: number): Promise<void> {
    await resizeInTurn(this.queues[0] as Image, sectors * sectorSize);
  }

  amend(options: AmendOptions): Promise<void> {
    return (this.queues[0] as Image).amend(options);
  }

  async snapshot(action: SnapshotAction, name: string): Promise<void> {
    const image = this.queues[0] as Image;
    if (action === 'create') {
      this.#snapshots.set(name, await marksOf(image, this.sectors));
      await image.snapshots.create(name);
    } else if (action === 'apply') {
      const changes = beginReturn(this.promises, this.#snapshots.get(name)!);
      await image.snapshots.apply(name);
      for (const change of changes) this.promises.end(change);
    } else {
      await image.snapshots.delete(name);
    }
  }

  async #change(
    mark: Mark,
    sector: number,
    count: number,
    definite: boolean,
    request: () => Promise<void>,
  ): Promise<void> {
    const change = this.promises.begin(mark, sector, count, definite);
    await request();
    this.promises.end(change);
  }
}

/** A logged file that promises nothing of what it grows by. */
export class UncertainFile extends CrashLogFile {
  override get limits(): StorageLimits {
    return { ...super.limits, zeroInit: false };
  }

  override openQueue(): UncertainFile {
    return new UncertainFile(this.inner.openQueue(), this.log);
  }
}

/** Runs a workload and records it. */
export async function record(
  workload: Workload,
  seed: number,
  sabotage: Sabotage = {},
): Promise<Recording> {
  const start = await makeStart(workload, seed);
  const clock = new LogClock();
  const random = new Random(seed);
  const schedule = drawnSchedule(new Random(seed ^ 0x5bd1e995));
  const logged = (name: string, bytes: Uint8Array): { file: StorageFile; log: CrashLog } => {
    const log = new CrashLog(clock);
    const inner = new MemoryFile(name, { content: contentOf(bytes), schedule });
    const file =
      workload.zeroInit === false ? new UncertainFile(inner, log) : new CrashLogFile(inner, log);
    return { file: sabotage.wrap?.(file) ?? file, log };
  };
  const file = logged('disk.qcow2', start.content);
  const { data } = start;
  const dataFile = data && { ...logged(dataName, data), initial: data };
  const promises = new Promises(clock, start.marks, Math.max(backingMark, ...start.marks));
  const { run } = workload;
  if (run === undefined) await repair(file.file);
  else {
    const work = { ...workload, run };
    await runOn(work, file.file, dataFile?.file, start, promises, clock, random, sabotage.format);
  }
  return {
    workload,
    seed,
    file: { initial: start.content, log: file.log },
    dataFile,
    backing: start.backing,
    promises,
    snapshotMarks: start.snapshotMarks,
  };
}

/** Repairs an image as `check -r all` does. */
export async function repair(file: StorageFile): Promise<CheckReport> {
  return checkQcow2(file, await readQcow2Header(file, { forCheck: true }), { repair: 'all' });
}

async function runOn(
  workload: Pick<Workload, 'queues' | 'image' | 'reserveAhead'> & Required<Pick<Workload, 'run'>>,
  file: StorageFile,
  dataFile: StorageFile | undefined,
  { backing }: { readonly backing: Uint8Array | undefined },
  promises: Promises,
  clock: LogClock,
  random: Random,
  prepare?: (format: Qcow2Image) => void,
): Promise<void> {
  const { reserveAhead } = workload;
  const image = await openOver({ file, dataFile, backing, reserveAhead }, prepare);
  const queues: RequestTarget[] = [image];
  while (queues.length < (workload.queues ?? 1)) queues.push(await image.openQueue());
  const sectorsPerCluster = image.clusterSize! / sectorSize;
  await workload.run(new RecordedDisk(queues, promises, clock, random, sectorsPerCluster));
  const begun = clock.tick();
  await image.close();
  promises.noteFlush(begun);
}

/** What a workload begins with. */
export interface Start {
  readonly content: Uint8Array;
  readonly data: Uint8Array | undefined;
  readonly backing: Uint8Array | undefined;
  /** What each sector shows. */
  readonly marks: Uint32Array;
  /** What each shows in the snapshot, if there is one. */
  readonly snapshotMarks: Uint32Array | undefined;
}

/** Makes the image that a workload begins with. */
export async function makeStart(workload: Workload, seed: number): Promise<Start> {
  const { sectors, backedSectors = 0, before, sinceSnapshot } = workload;
  let content = new MemoryContent();
  const data = workload.dataFile === true ? new MemoryContent() : undefined;
  const dataFile = data && new MemoryFile(dataName, { content: data });
  const backing = backedSectors > 0 ? fillSectors(backingMark, 0, backedSectors) : undefined;
  const options = {
    ...workload.image,
    ...(backedSectors > 0 && { backingFile: 'base.raw', backingFormat: 'raw' as const }),
    ...(data !== undefined && { dataFile: dataName }),
  };
  const decided = decideCreateOptions(options, sectors * sectorSize);
  await createQcow2(new MemoryFile('disk.qcow2', { content }), dataFile, decided, undefined);
  const marks = new Uint32Array(sectors).fill(backingMark, 0, backedSectors);
  const random = new Random(seed);
  const clock = new LogClock();
  const use = async (run: NonNullable<Workload['before']>): Promise<void> => {
    const promises = new Promises(clock, marks.slice(), marks.reduce(higher, backingMark));
    const file = new MemoryFile('disk.qcow2', { content });
    await runOn({ ...workload, run }, file, dataFile, { backing }, promises, clock, random);
    for (const [sector, [mark]] of promises.permittedAt(Infinity).entries()) marks[sector] = mark;
  };
  if (before !== undefined) await use(before);
  let snapshotMarks: Uint32Array | undefined;
  if (workload.snapshot === true) {
    content = contentOf(await withRealSnapshot(bytesOf(content), backing));
    snapshotMarks = marks.slice();
  }
  if (sinceSnapshot !== undefined) await use(sinceSnapshot);
  const bytes = workload.damage?.(bytesOf(content), new Random(seed)) ?? bytesOf(content);
  return { content: bytes, data: data && bytesOf(data), backing, marks, snapshotMarks };
}

function higher(one: number, other: number): number {
  return Math.max(one, other);
}

/** Some of what waits happens at each turn, in an order that the random numbers draw. */
export function drawnSchedule(random: Random): Schedule {
  const waiting: (() => void)[] = [];
  const turn = (): void => {
    for (let count = 1 + random.below(waiting.length); count > 0; count--) {
      const [work] = waiting.splice(random.below(waiting.length), 1);
      work();
    }
    if (waiting.length > 0) setImmediate(turn);
  };
  return (work) => {
    waiting.push(work);
    if (waiting.length === 1) setImmediate(turn);
  };
}
