/**
 * A qcow2 image on a simulated device, with several queues on this thread, a history of what was
 * asked of it, and the judgement at the end: by that history, and by the real tools.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, after } from 'node:test';
import fc from 'fast-check';
import { QueueCounters } from '../../src/engine/queues/counters.js';
import { permissionsOf } from '../../src/image/graph/permissions.js';
import { edgeTo } from '../support/edge.js';
import { Node } from '../../src/engine/queues/node.js';
import { openQcow2, readQcow2Header, type Qcow2Image } from '../../src/format/qcow2/image.js';
import { openRaw } from '../../src/format/raw/image.js';
import type { ImageQueue, RequestTarget } from '../../src/image/api/image.js';
import type { CreateOptions } from '../../src/image/api/options.js';
import { formatFile } from '../../src/image/graph/create.js';
import { OpenedImage } from '../../src/image/graph/opened-image.js';
import { allocateSharedState } from '../../src/image/graph/shared-state.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import { contentOf } from '../crash/open-over.js';
import { snapshotName, withRealSnapshot } from '../crash/real-tools.js';
import { run, temporaryFolder } from '../support/tools.js';
import {
  type Change,
  History,
  type Moment,
  backingMark,
  fillSectors,
  markOf,
  sectorSize,
} from './history.js';
import { type DeviceOptions, SimulatedDevice, SimulatedFile } from './simulated-device.js';

/** One request; places and lengths in sectors. */
export type Request =
  | { readonly kind: 'write'; readonly sector: number; readonly count: number }
  | { readonly kind: 'read'; readonly sector: number; readonly count: number }
  | { readonly kind: 'discard'; readonly sector: number; readonly count: number }
  | {
      readonly kind: 'zero';
      readonly sector: number;
      readonly count: number;
      readonly unmap: boolean;
    }
  /** Of one whole cluster. */
  | { readonly kind: 'compress'; readonly sector: number; readonly count: number }
  | { readonly kind: 'flush' };

/** The disk a run begins with. */
export interface DiskOptions {
  readonly image: CreateOptions;
  /** Bytes. */
  readonly size: number;
  /** Sectors of a backing file; none by default. */
  readonly backedSectors?: number;
  /** Requests done, one after the other, after which the real tool takes a snapshot. */
  readonly beforeSnapshot?: readonly Request[];
  /** Requests done, one after the other, before the run. */
  readonly before?: readonly Request[];
  /** Whether the file reads as zero where it grows. */
  readonly zeroInit?: boolean;
  readonly queues: number;
}

/** Requests that one user of a queue makes, one after the other. */
export interface Lane {
  readonly queue: number;
  readonly requests: readonly Request[];
}

/** What a run may leave behind. */
export interface Verdict {
  /** Whether clusters may be counted that nothing uses. */
  readonly leaksAllowed?: boolean;
}

/** A power cut after so many choices; a bit for each change that may survive it or not. */
export interface PowerCut {
  readonly at: number;
  readonly survivors: number;
}

/** Random power cuts early and late in a run. */
export const powerCuts: fc.Arbitrary<PowerCut[]> = fc.array(
  fc.record({ at: fc.integer({ min: 1, max: 400 }), survivors: fc.integer() }),
  { maxLength: 3 },
);

const imageName = 'disk.qcow2';
const backingName = 'base.raw';
const expectedName = 'expected.raw';

// A run that failed is left as it stands, and requests that wait in it would keep the process.
after(() => {
  setTimeout(() => process.exit(), 1000).unref();
});

/** Environment of the properties, as those of other tests. */
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const wantedRuns = process.env['COWHERD_TEST_RUNS'];
const replayed = process.env['COWHERD_TEST_PATH'];

/** What `fc.assert` takes, so that a failure names the seed and path that repeat it. */
export function propertyParameters(
  t: TestContext,
  runs: number,
): {
  readonly seed: number;
  readonly numRuns: number;
  readonly includeErrorInReport: boolean;
  readonly interruptAfterTimeLimit: number;
  readonly path?: string;
} {
  const numRuns = wantedRuns === undefined ? runs : Number(wantedRuns);
  t.diagnostic(`seed ${seed}, ${numRuns} runs`);
  return {
    seed,
    numRuns,
    includeErrorInReport: true,
    // Finding a small failure may take long; the seed and path of the one found last will do.
    interruptAfterTimeLimit: 20_000,
    ...(replayed === undefined ? {} : { path: replayed }),
  };
}

/** What orders a random run: a scheduler, and operations that are kept back for long. */
export const schedules: fc.Arbitrary<DeviceOptions> = fc.record({
  scheduler: fc.scheduler(),
  delays: fc.array(fc.constantFrom(0, 0, 0, 0, 0, 0, 4, 20, 100), { maxLength: 61 }),
});

/** See the file's comment. */
export class SimulatedDisk {
  readonly device: SimulatedDevice;
  readonly history: History;
  readonly image: OpenedImage;
  readonly format: Qcow2Image;
  /** The image's own queue, and as many more as were wanted. */
  readonly queues: readonly RequestTarget[];
  readonly #file: SimulatedFile;
  readonly #t: TestContext;
  /** What power cuts have left so far; a content is judged once. */
  readonly #judgedCuts = new Set<string>();
  readonly #snapshotMoment: Moment | undefined;

  private constructor(
    t: TestContext,
    device: SimulatedDevice,
    history: History,
    file: SimulatedFile,
    image: OpenedImage,
    format: Qcow2Image,
    queues: readonly RequestTarget[],
    snapshotMoment: Moment | undefined,
  ) {
    this.#t = t;
    this.device = device;
    this.history = history;
    this.#file = file;
    this.image = image;
    this.format = format;
    this.queues = queues;
    this.#snapshotMoment = snapshotMoment;
  }

  /** Makes and opens a disk. */
  static async open(
    t: TestContext,
    options: DiskOptions,
    order: DeviceOptions = {},
  ): Promise<SimulatedDisk> {
    const { backedSectors = 0 } = options;
    const { content, backing, history, snapshotMoment } = await startingPoint(options);
    const device = new SimulatedDevice(order);
    const file = new SimulatedFile(imageName, device, content, options.zeroInit ?? true);
    const opening = openOver(
      file,
      new SimulatedFile(backingName, device, backing),
      backedSectors > 0,
    );
    const { image, format } = await device.drive(opening);
    const queues: RequestTarget[] = [image];
    while (queues.length < options.queues) queues.push(await device.drive(image.openQueue()));
    return new SimulatedDisk(t, device, history, file, image, format, queues, snapshotMoment);
  }

  /** A queue that can be closed by itself. */
  closable(queue: number): ImageQueue {
    assert.ok(queue > 0, 'the first queue is that of the image');
    return this.queues[queue] as ImageQueue;
  }

  /** Makes a request and notes it; what it reads must be permitted. */
  ask(queue: number, request: Request): Promise<void> {
    return ask(this.history, this.queues[queue], request);
  }

  /** Makes a request with nothing else under way. */
  async alone(queue: number, request: Request): Promise<void> {
    await this.device.drive(this.ask(queue, request));
  }

  /** Runs lanes side by side. Each request begins when the schedule chooses it. */
  async runLanes(lanes: readonly Lane[]): Promise<void> {
    await this.device.drive(this.start(lanes));
  }

  /**
   * Starts lanes; somebody has to drive the device until they end.
   *
   * @param failed takes the errors of requests, after which their lane goes on
   */
  async start(lanes: readonly Lane[], failed?: (error: unknown) => void): Promise<void> {
    const users = lanes.map(async ({ queue, requests }, index) => {
      for (const request of requests) {
        await this.device.chosen(`lane ${index}: ${JSON.stringify(request)}`);
        const asked = this.ask(queue, request);
        await (failed === undefined ? asked : asked.catch(failed));
      }
    });
    await Promise.all(users);
  }

  /** Closes the image and judges what it left. */
  async closeAndJudge(verdict: Verdict = {}): Promise<void> {
    await this.device.drive(this.image.close());
    await this.judge(verdict);
  }

  /** Judges what a closed image left, snapshot included: by the history, and by the real tools. */
  async judge({ leaksAllowed = false }: Verdict = {}): Promise<void> {
    const { live } = this.#file.bytes;
    const folder = await this.#writeOut(live);
    const expected = await open(path.join(folder, expectedName), 'w');
    try {
      await expected.truncate(this.image.size);
      await this.#readOut(live, async (start, sectors) => {
        for (const [index, bytes] of sectors.entries()) {
          expectMark(bytes, start + index, this.history.finally(start + index), 'in the end');
        }
        await expected.writev([...sectors], start * sectorSize);
      });
    } finally {
      await expected.close();
    }
    const compare = ['compare', '-f', 'raw', '-F', 'qcow2', expectedName, imageName];
    const [check, compared] = await Promise.all([
      run('qemu-img', ['check', '-f', 'qcow2', imageName], { cwd: folder }),
      run('qemu-img', compare, { cwd: folder }),
    ]);
    const good = check.code === 0 || (leaksAllowed && check.code === 3);
    assert.ok(good, `qemu-img check: ${check.stdout}${check.stderr}`);
    assert.equal(compared.code, 0, `qemu-img compare: ${compared.stdout}${compared.stderr}`);
    await this.#judgeSnapshot(live);
  }

  async #judgeSnapshot(content: MemoryContent): Promise<void> {
    const moment = this.#snapshotMoment;
    if (moment === undefined) return;
    const judged = (start: number, sectors: readonly Uint8Array[]): Promise<void> => {
      for (const [index, bytes] of sectors.entries()) {
        const sector = start + index;
        const permitted = this.history.permitted(sector, moment, moment);
        expectMark(bytes, sector, permitted, 'of the snapshot');
      }
      return Promise.resolve();
    };
    await this.#readOut(content, judged, snapshotName);
  }

  /**
   * What a power cut now would leave, to be judged once the run has ended: no cluster is shared that
   * should not be, and what had been flushed is there.
   */
  powerCut(survives: (index: number, count: number) => boolean): () => Promise<void> {
    const content = this.#file.bytes.afterPowerCut(survives);
    const at = this.device.choices;
    const promised = this.#touched().map((sector) => ({
      sector,
      marks: this.history.afterPowerCut(sector),
    }));
    const judged = createHash('sha1')
      .update(wholeContent(content))
      .update(JSON.stringify(promised, marksAsList));
    const key = judged.digest('hex');
    if (this.#judgedCuts.has(key)) return () => Promise.resolve();
    this.#judgedCuts.add(key);
    return async () => {
      const folder = await this.#writeOut(content);
      const check = await run('qemu-img', ['check', '-f', 'qcow2', imageName], { cwd: folder });
      const report = `${check.stdout}${check.stderr}`;
      assert.ok(
        check.code === 0 || check.code === 3,
        `after a power cut at ${at}, qemu-img check: ${report}`,
      );
      const found = new Map<number, Uint8Array>();
      await this.#readOut(content, (start, sectors) => {
        for (const [index, bytes] of sectors.entries()) found.set(start + index, bytes);
        return Promise.resolve();
      });
      for (const { sector, marks } of promised) {
        if (marks !== undefined) {
          expectMark(found.get(sector)!, sector, marks, `after a power cut at ${at}`);
        }
      }
    };
  }

  /**
   * Cuts the power at moments of the run to come.
   *
   * @returns the verdicts on what each leaves; complete when the run has ended
   */
  cutPower(cuts: readonly PowerCut[]): readonly (() => Promise<void>)[] {
    const start = this.device.choices;
    const verdicts: (() => Promise<void>)[] = [];
    this.device.onChoice = () => {
      for (const { at, survivors } of cuts) {
        if (this.device.choices !== start + at) continue;
        verdicts.push(this.powerCut((index) => ((survivors >>> (index % 32)) & 1) === 1));
      }
    };
    return verdicts;
  }

  /** Sectors of the disk that were touched; a backing file may be longer. */
  #touched(): readonly number[] {
    return this.history.touched().filter((sector) => sector * sectorSize < this.image.size);
  }

  async #writeOut(content: MemoryContent): Promise<string> {
    const folder = await temporaryFolder(this.#t);
    await writeSparse(path.join(folder, imageName), content);
    const { backing } = this.image;
    if (backing !== undefined) {
      const bytes = fillSectors(backingMark, 0, backing.size / sectorSize);
      await writeFile(path.join(folder, backingName), bytes);
    }
    return folder;
  }

  /** Reads an image's content by the engine, with nothing under way: runs of touched sectors. */
  async #readOut(
    content: MemoryContent,
    visit: (start: number, sectors: readonly Uint8Array[]) => Promise<void>,
    snapshot?: string,
  ): Promise<void> {
    const base = new MemoryContent();
    const { backing } = this.image;
    if (backing !== undefined) {
      base.write(fillSectors(backingMark, 0, backing.size / sectorSize), 0);
    }
    const { image } = await openOver(
      new MemoryFile(imageName, { content, readOnly: true }),
      new MemoryFile(backingName, { content: base, readOnly: true }),
      backing !== undefined,
      snapshot,
    );
    for (const { sector, count } of runsOf(this.#touched())) {
      const bytes = new Uint8Array(count * sectorSize);
      await image.read(bytes, sector * sectorSize);
      const sectors = Array.from({ length: count }, (_, index) =>
        bytes.subarray(index * sectorSize, (index + 1) * sectorSize),
      );
      await visit(sector, sectors);
    }
    await image.close();
  }
}

/** What a disk holds before a run, and how it came there. */
interface StartingPoint {
  readonly content: MemoryContent;
  readonly backing: MemoryContent;
  readonly history: History;
  /** When the snapshot was taken, if there is one. */
  readonly snapshotMoment: Moment | undefined;
}

const startingPoints = new Map<string, StartingPoint>();

/** Makes a disk's first content, once for all runs that begin alike. */
async function startingPoint(options: DiskOptions): Promise<StartingPoint> {
  const { image, size, backedSectors = 0, before = [], beforeSnapshot = [] } = options;
  const key = JSON.stringify({ image, size, backedSectors, before, beforeSnapshot });
  const start = startingPoints.get(key) ?? (await makeStart(options));
  startingPoints.set(key, start);
  return { ...start, content: start.content.clone(), history: start.history.clone() };
}

async function makeStart(options: DiskOptions): Promise<StartingPoint> {
  const { backedSectors = 0, before = [], beforeSnapshot = [] } = options;
  const history = new History(backedSectors);
  let content = new MemoryContent();
  await formatFile(new MemoryFile(imageName, { content }), {
    format: 'qcow2',
    size: options.size,
    ...options.image,
    ...(backedSectors > 0 ? { backingFile: backingName, backingFormat: 'raw' } : {}),
  });
  const backing = new MemoryContent();
  backing.write(fillSectors(backingMark, 0, backedSectors), 0);
  const askAll = async (requests: readonly Request[]): Promise<void> => {
    const { image } = await openOver(
      new MemoryFile(imageName, { content }),
      new MemoryFile(backingName, { content: backing }),
      backedSectors > 0,
    );
    for (const request of requests) await ask(history, image, request);
    await image.close();
    history.noteFlush(history.now());
  };
  let snapshotMoment: Moment | undefined;
  if (beforeSnapshot.length > 0) {
    await askAll(beforeSnapshot);
    snapshotMoment = history.now();
    const base = backedSectors > 0 ? wholeContent(backing) : undefined;
    content = contentOf(await withRealSnapshot(wholeContent(content), base));
  }
  if (before.length > 0) await askAll(before);
  return { content, backing, history, snapshotMoment };
}

async function openOver(
  file: StorageFile,
  backingFile: StorageFile,
  isBacked: boolean,
  snapshot?: string,
): Promise<{ image: OpenedImage; format: Qcow2Image }> {
  const header = await readQcow2Header(file);
  const shared = allocateSharedState();
  const node = new Node(shared.control, file.filename, permissionsOf(file, {}));
  const counters = QueueCounters.take(shared.counters);
  const format = await openQcow2(file, header, {
    node,
    counters,
    dataFile: undefined,
    readOnly: file.readOnly,
    forCheck: false,
    forInfo: false,
    onFinding: undefined,
    cacheSizes: { total: 0 },
    overlapCheck: 'all',
    lazyRefcounts: undefined,
    inOrder: false,
    snapshot,
  });
  node.resize(format.size);
  const parts = { children: [], formatName: 'qcow2', options: {} };
  const backing = isBacked ? await openBacking(backingFile) : undefined;
  const image = new OpenedImage({
    ...parts,
    file,
    format,
    edge: edgeTo(node, shared, backing),
    shared,
    node,
    counters,
  });
  return { image, format };
}

async function openBacking(file: StorageFile): Promise<OpenedImage> {
  const shared = allocateSharedState();
  const node = new Node(shared.control, file.filename, permissionsOf(file, {}));
  const format = await openRaw(file, node);
  node.resize(format.size);
  const counters = QueueCounters.take(shared.counters);
  const parts = { children: [], formatName: 'raw', options: {}, edge: undefined };
  return new OpenedImage({ ...parts, file, format, shared, node, counters });
}

async function ask(history: History, target: RequestTarget, request: Request): Promise<void> {
  if (request.kind === 'flush') {
    const begun = history.now();
    await target.flush();
    history.noteFlush(begun);
    return;
  }
  const { kind, sector, count } = request;
  const offset = sector * sectorSize;
  const length = count * sectorSize;
  if (kind === 'read') {
    const begun = history.now();
    const bytes = new Uint8Array(length);
    await target.read(bytes, offset);
    const ended = history.now();
    for (let index = 0; index < count; index++) {
      const part = bytes.subarray(index * sectorSize, (index + 1) * sectorSize);
      expectMark(part, sector + index, history.permitted(sector + index, begun, ended), 'read');
    }
    return;
  }
  const mark = kind === 'write' || kind === 'compress' ? history.newMark() : 0;
  const data = fillSectors(mark, sector, count);
  const change: Change = history.begin(mark, sector, count, kind !== 'discard');
  try {
    if (kind === 'write') await target.write(data, offset);
    else if (kind === 'compress') await target.writeCompressed(data, offset);
    else if (kind === 'zero') await target.writeZeroes(offset, length, { unmap: request.unmap });
    else await target.discard(offset, length);
    history.end(change, true);
  } catch (error) {
    history.end(change, false);
    throw error;
  }
  // Whoever owns a buffer again may do with it what he likes.
  data.fill(0xee);
}

function expectMark(
  bytes: Uint8Array,
  sector: number,
  permitted: ReadonlySet<number>,
  when: string,
): void {
  const mark = markOf(bytes, sector);
  if (mark !== undefined && permitted.has(mark)) return;
  const found = mark ?? `no mark but ${Buffer.from(bytes.subarray(0, 16)).toString('hex')}`;
  assert.fail(`sector ${sector} ${when} shows ${found}, permitted: ${[...permitted].join(', ')}`);
}

/** Joins ascending sectors that follow one another. */
function runsOf(sectors: readonly number[]): { readonly sector: number; readonly count: number }[] {
  const runs: { sector: number; count: number }[] = [];
  for (const sector of sectors) {
    const last = runs.at(-1);
    if (last !== undefined && last.sector + last.count === sector) last.count++;
    else runs.push({ sector, count: 1 });
  }
  return runs;
}

function marksAsList(_key: string, value: unknown): unknown {
  return value instanceof Set ? [...(value as Set<number>)] : value;
}

function wholeContent(content: MemoryContent): Uint8Array {
  const bytes = new Uint8Array(content.size);
  content.read(bytes, 0);
  return bytes;
}

async function writeSparse(target: string, content: MemoryContent): Promise<void> {
  const file = await open(target, 'w');
  try {
    await file.truncate(content.size);
    for (let offset = 0; offset < content.size;) {
      const { data, length } = content.status(offset, content.size - offset);
      if (data) {
        const bytes = new Uint8Array(length);
        content.read(bytes, offset);
        await file.write(bytes, 0, length, offset);
      }
      offset += length;
    }
  } finally {
    await file.close();
  }
}
