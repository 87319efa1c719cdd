/**
 * Goes through the moments of a recording, makes every state that a power cut could have left there,
 * and has each new one judged: by the referee always, by the engine and the real tool by sample.
 */
import { checkQcow2 } from '../../src/format/qcow2/check/check.js';
import { readQcow2Header } from '../../src/format/qcow2/image.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';
import { type Mark, backingMark, sectorSize } from '../schedules/history.js';
import { Random } from '../stress/random.js';
import { FileState } from './file-state.js';
import { markAt } from './marks.js';
import { bytesOf, contentOf, openOver } from './open-over.js';
import { type Pending, pendingOf, pointsOf } from './pending.js';
import { realCheck } from './real-tools.js';
import { type Recording, repair } from './recording.js';
import { Referee, type Verdict, markedBelow } from './referee.js';
import { type PlacedPiece, visitStates } from './states.js';

/** How a recording is examined. */
export interface ExaminationOptions {
  /** Every so many distinct states the engine opens, reads and checks one. */
  readonly engineEvery: number;
  /** Every so many distinct states the real tool checks one; 0 where there is no tool. */
  readonly realEvery: number;
  /** Barriers of the image file to be left out, by number: to test the tester. */
  readonly withoutBarrier?: number;
  /** Looks at one moment of so many; at each by default. */
  readonly momentEvery?: number;
  /** Ends at this time, in milliseconds since 1970. */
  readonly deadlineMs?: number;
}

/** What an examination found. */
export interface Outcome {
  /** Changes and barriers that were recorded. */
  ios: number;
  /** States that were made, the same ones included. */
  enumerated: number;
  /** States that were judged. */
  distinct: number;
  /** Of those, by the engine and by the real tool as well. */
  byEngine: number;
  byRealTool: number;
  readonly failures: string[];
}

const mostFailures = 5;

interface Sample {
  readonly image: Uint8Array;
  readonly data: Uint8Array | undefined;
  readonly permitted: readonly (readonly Mark[])[];
  readonly name: string;
  readonly dirty: boolean;
  readonly real: boolean;
}

/** Examines a recording. */
export async function examine(recording: Recording, options: ExaminationOptions): Promise<Outcome> {
  return new Examination(recording, options).run();
}

class Examination {
  readonly #recording: Recording;
  readonly #options: ExaminationOptions;
  readonly #states: readonly FileState[];
  readonly #changes: readonly Pending[];
  readonly #points: readonly number[];
  readonly #below: (sector: number) => Mark;
  readonly #seen = new Set<number>();
  readonly #signatures = new Set<string>();
  readonly #samples: Sample[] = [];
  readonly #outcome: Outcome;
  #time = 0;
  #flushed = 0;
  #pendingCount = 0;
  /** Whether the recording has ended, with the closing of the image. */
  #isClosed = false;
  #permitted: readonly (readonly Mark[])[] = [];
  #damageAtFirst: CountDamage | undefined;

  constructor(recording: Recording, options: ExaminationOptions) {
    this.#recording = recording;
    this.#options = options;
    const files = [recording.file, recording.dataFile].filter((file) => file !== undefined);
    this.#states = files.map(({ initial, log }) => {
      const ends = log.changes.map(({ offset, length }) => offset + length);
      return new FileState(initial, Math.max(0, ...ends));
    });
    const skipped = options.withoutBarrier;
    const changes = files.flatMap((file, index) => {
      const kept = file.log.barriers.filter((_, number) => index > 0 || number !== skipped);
      return pendingOf(file, index as 0 | 1, kept);
    });
    this.#changes = changes.sort((one, other) => one.submitted - other.submitted);
    const barriers = files.flatMap(({ log }) => log.barriers);
    this.#points = pointsOf(recording.promises, this.#changes, barriers);
    this.#below = markedBelow(recording.workload.backedSectors ?? 0, backingMark);
    const ios = this.#changes.length + barriers.length;
    this.#outcome = { ios, enumerated: 0, distinct: 0, byEngine: 0, byRealTool: 0, failures: [] };
  }

  async run(): Promise<Outcome> {
    const { promises, seed } = this.#recording;
    const random = new Random(seed ^ 0x2545f491);
    const byDurability = this.#changes
      .filter(({ durable }) => durable !== Infinity)
      .sort((one, other) => one.durable - other.durable || one.completed - other.completed);
    const { momentEvery = 1 } = this.#options;
    let applied = 0;
    for (const [number, time] of this.#points.entries()) {
      const isLast = time === this.#points.at(-1);
      if (number % momentEvery !== seed % momentEvery && !isLast) continue;
      while (applied < byDurability.length && byDurability[applied].durable <= time) {
        const change = byDurability[applied++];
        this.#states[change.file].apply(change);
      }
      this.#time = time;
      this.#flushed = promises.flushedAt(time);
      this.#permitted = promises.permittedAt(time);
      const pending = this.#changes.filter(
        ({ submitted, durable }) => submitted <= time && durable > time,
      );
      this.#isClosed = isLast;
      this.#pendingCount = pending.length;
      visitStates(pending, random, (pieces, shape) => {
        this.#visit(pieces, shape);
      });
      for (const sample of this.#samples.splice(0)) await this.#judgeSample(sample);
      if (this.#isEnough) break;
    }
    return this.#outcome;
  }

  get #isEnough(): boolean {
    const { deadlineMs = Infinity } = this.#options;
    return this.#outcome.failures.length >= mostFailures || Date.now() > deadlineMs;
  }

  #visit(pieces: readonly PlacedPiece[], shape: string): void {
    this.#outcome.enumerated++;
    for (const state of this.#states) state.begin();
    for (const piece of pieces) this.#states[piece.file].apply(piece);
    const key = this.#key();
    if (!this.#seen.has(key)) {
      this.#seen.add(key);
      if (this.#outcome.failures.length < mostFailures) this.#judge(shape, pieces.length);
    }
    for (const state of this.#states) state.rollBack();
  }

  /** Of the content, and of how much of it was flushed: later promises narrow with that alone. */
  #key(): number {
    let first = Math.imul(this.#flushed + 1, 0x165667b1);
    let second = Math.imul(this.#flushed + 1, 0x9e3779b1);
    for (const state of this.#states) {
      const [one, other] = state.hashes;
      first = Math.imul(first, 31) ^ one;
      second = Math.imul(second, 33) ^ other;
    }
    return (first >>> 0) * 2 ** 21 + (second >>> 11);
  }

  #judge(shape: string, pieces: number): void {
    if (this.#recording.workload.damage !== undefined) {
      this.#judgeRepair(shape, pieces);
      return;
    }
    const [image, data] = this.#states;
    const verdict = new Referee({
      image: image.bytes,
      imageSize: image.size,
      data: (data as FileState | undefined)?.bytes,
      dataSize: (data as FileState | undefined)?.size ?? 0,
    }).judge({
      permitted: this.#permitted,
      backing: this.#below,
      snapshotMarks: this.#recording.snapshotMarks,
      hasExclusiveChanges: this.#recording.workload.hasExclusiveChanges,
      isClosed: this.#isClosed && pieces === this.#pendingCount,
      since: this.#recording.workload.hasBitmap ? this.#recording.promises.initial : undefined,
    });
    const number = this.#outcome.distinct++;
    const name = `${this.#name} at ${this.#time}, ${shape} (${pieces} changes)`;
    for (const problem of verdict.problems) this.#fail(name, problem);
    if (this.#isClosed && pieces === this.#pendingCount && verdict.leaks > 0) {
      this.#fail(name, `${verdict.leaks} clusters are leaked by an image that was closed`);
    }
    const { engineEvery, realEvery } = this.#options;
    const interesting = this.#isNew(shape, verdict);
    const real = realEvery > 0 && (interesting || number % realEvery === 0);
    if (!interesting && !real && number % engineEvery !== 0) return;
    this.#samples.push({
      image: image.bytes.slice(0, image.size),
      data: (data as FileState | undefined)?.bytes.slice(0, data.size),
      permitted: this.#permitted,
      name,
      dirty: verdict.dirty,
      real,
    });
  }

  /** A state of a repair: each is repaired again, by the engine, and sometimes by the real tool. */
  #judgeRepair(shape: string, pieces: number): void {
    const [image] = this.#states;
    const number = this.#outcome.distinct++;
    const { realEvery } = this.#options;
    this.#samples.push({
      image: image.bytes.slice(0, image.size),
      data: undefined,
      permitted: this.#permitted,
      name: `${this.#name} at ${this.#time}, ${shape} (${pieces} changes)`,
      dirty: false,
      real: realEvery > 0 && number % realEvery === 0,
    });
  }

  /** Whether a state is the first of its kind in this recording, or in disorder. */
  #isNew(shape: string, { problems, leaks, dirty, refcountTable }: Verdict): boolean {
    if (problems.length > 0) return true;
    const signature = [shape, leaks > 0, dirty, refcountTable].join();
    const isNew = !this.#signatures.has(signature);
    this.#signatures.add(signature);
    return isNew;
  }

  async #judgeSample(sample: Sample): Promise<void> {
    this.#outcome.byEngine++;
    try {
      if (this.#recording.workload.damage === undefined) await this.#judgeByEngine(sample);
      else {
        await this.#judgeByRepairing(sample);
        return;
      }
    } catch (error) {
      this.#fail(sample.name, `the engine: ${(error as Error).message}`);
    }
    if (!sample.real) return;
    this.#outcome.byRealTool++;
    const { backing } = this.#recording;
    const { objection, repaired } = await realCheck({ ...sample, backing }, sample.dirty);
    if (objection !== undefined) this.#fail(sample.name, objection);
    if (!sample.dirty) return;
    try {
      await this.#judgeByEngine({ ...sample, image: repaired, dirty: false });
    } catch (error) {
      this.#fail(sample.name, `after the repair: ${(error as Error).message}`);
    }
  }

  async #judgeByEngine({ image, data, permitted, dirty }: Sample): Promise<void> {
    const over = (name: string, bytes: Uint8Array): MemoryFile =>
      new MemoryFile(name, { content: contentOf(bytes), readOnly: true });
    const opened = await openOver({
      file: over('disk.qcow2', image),
      dataFile: data && over('disk.data', data),
      backing: this.#recording.backing,
    });
    const bytes = new Uint8Array(opened.size);
    await opened.read(bytes, 0);
    comparePermitted(bytes, permitted);
    const { corruptions, checkErrors, findings } = await opened.check();
    await opened.close();
    if ((corruptions > 0 && !dirty) || checkErrors > 0) {
      throw new Error(findings.map(({ message }) => message).join('; '));
    }
  }

  /**
   * The guest's data are there, before and after another repair, which ends what the first began;
   * and nothing is counted less often than it was, unless the image still says so.
   */
  async #judgeByRepairing({ image, permitted, name, real }: Sample): Promise<void> {
    this.#damageAtFirst ??= await damageOf(this.#recording.file.initial);
    const damage = await damageOf(image);
    const marked = (new DataView(image.buffer).getUint32(76) & 3) !== 0;
    for (const cluster of damage.tooLow) {
      // What the dirty bit says at first must be put right before the bit goes.
      if (marked || (!this.#damageAtFirst.dirty && this.#damageAtFirst.tooLow.has(cluster)))
        continue;
      throw new Error(`cluster ${cluster} is counted too low, and the image does not say so`);
    }
    await readsAsPermitted(image, permitted);
    const content = contentOf(image);
    const { corruptions, checkErrors, leaks, failure } = await repair(
      new MemoryFile('disk.qcow2', { content }),
    );
    if (corruptions + checkErrors + leaks > 0 || failure !== undefined) {
      throw new Error(
        `repaired again, ${corruptions + checkErrors} errors, ${leaks} leaks are left`,
      );
    }
    const repaired = bytesOf(content);
    await readsAsPermitted(repaired, permitted);
    const { problems, leaks: leaked } = new Referee({
      image: repaired,
      imageSize: repaired.length,
      data: undefined,
      dataSize: 0,
    }).judge({ permitted, backing: this.#below, snapshotMarks: this.#recording.snapshotMarks });
    if (problems.length + leaked > 0) {
      throw new Error(`repaired again, ${leaked} leaks, ${problems.join('; ')}`);
    }
    const again = contentOf(repaired);
    const untouched = await repair(new MemoryFile('disk.qcow2', { content: again }));
    if (untouched.corruptionsFixed + untouched.leaksFixed > 0) {
      throw new Error('a repair of what was repaired found something');
    }
    if (!real) return;
    this.#outcome.byRealTool++;
    const { objection } = await realCheck(
      { image: repaired, data: undefined, backing: undefined },
      false,
    );
    if (objection !== undefined) this.#fail(name, objection);
  }

  #fail(name: string, problem: string): void {
    this.#outcome.failures.push(`${name}: ${problem}`);
  }

  get #name(): string {
    const { workload, seed } = this.#recording;
    return `${workload.name}, seed ${seed}`;
  }
}

/** Clusters whose counts are too low, and whether the image says that it was not closed. */
interface CountDamage {
  readonly tooLow: ReadonlySet<number>;
  readonly dirty: boolean;
}

async function damageOf(image: Uint8Array): Promise<CountDamage> {
  const tooLow = new Set<number>();
  const file = new MemoryFile('disk.qcow2', { content: contentOf(image), readOnly: true });
  const header = await readQcow2Header(file, { forCheck: true });
  await checkQcow2(file, header, {
    onFinding: ({ message }) => {
      const found = /^ERROR cluster (\d+) refcount=/.exec(message);
      if (found !== null) tooLow.add(Number(found[1]));
    },
  });
  return { tooLow, dirty: (header.incompatibleFeatures & 1) !== 0 };
}

async function readsAsPermitted(
  image: Uint8Array,
  permitted: readonly (readonly Mark[])[],
): Promise<void> {
  const file = new MemoryFile('disk.qcow2', { content: contentOf(image), readOnly: true });
  const opened = await openOver({ file, dataFile: undefined, backing: undefined });
  const bytes = new Uint8Array(opened.size);
  await opened.read(bytes, 0);
  await opened.close();
  comparePermitted(bytes, permitted);
}

/** @throws Error if a sector shows a mark that it may not */
function comparePermitted(bytes: Uint8Array, permitted: readonly (readonly Mark[])[]): void {
  for (const [sector, marks] of permitted.entries()) {
    const found = markAt(bytes, sector * sectorSize, sector);
    if (found === undefined || !marks.includes(found)) {
      throw new Error(`sector ${sector} reads as ${found ?? 'no mark'}, not ${marks.join()}`);
    }
  }
}
