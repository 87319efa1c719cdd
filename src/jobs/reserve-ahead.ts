/** Reserving the blocks of a target ahead of its data, so that they lie together and in guest order. */
import type { RequestTarget } from '../image/api/image.js';
import type { CopiedPart } from '../image/graph/data-copy.js';
import type { Step } from './copy-windows.js';

/** Bytes reserved at once: as many as ext4 puts into one extent. */
const mostBytes = 128 * 1024 * 1024;
/** Data of fewer bytes are left to the file system, which puts small ones together as they are written. */
const leastBytes = 8 * 1024 * 1024;
/** A step that is known to have more holes is of scattered data, which are left to the file system. */
const mostKnownHoles = 1;
/** Runs of zeroes that are given back out of one reservation, each by itself. */
const mostHoles = 64;
/** After more of them have been found, so much is not reserved for: there will be yet more. */
const restraintBytes = 64 * 1024 * 1024;

/** A step of data that others may follow without a gap. */
export interface RunStep extends Step {
  /** Guest offset in bytes up to which there are data, as far as has been looked. */
  readonly dataEnd?: number;
}

/** Zeroes within what is reserved: a guest offset and a length in bytes. */
interface Hole {
  readonly start: number;
  readonly length: number;
}

/** See the file's comment. The target holds nothing yet, and is written in guest order. */
export class ReserveAhead {
  readonly #target: Pick<RequestTarget, 'reserve' | 'discard'>;
  /** Guest offset in bytes before which blocks are reserved, but for holes already found. */
  #end = 0;
  /** Guest offset in bytes before which everything has begun. */
  #begunTo = 0;
  #holes = 0;
  #restrainedBytes = 0;

  constructor(target: Pick<RequestTarget, 'reserve' | 'discard'>) {
    this.#target = target;
  }

  /** The same steps; those of data in large stretches say how far data go on. */
  async *steps(steps: AsyncIterable<Step>): AsyncGenerator<RunStep> {
    let run: Step[] = [];
    for await (const step of steps) {
      const isRun = isOfLargeData(step);
      if (isRun && (run.length === 0 || continues(run, step))) {
        run.push(step);
        continue;
      }
      yield* withEnd(run);
      run = [];
      if (isRun) run.push(step);
      else yield step;
    }
    yield* withEnd(run);
  }

  /**
   * To be called before data are written, when all before them have begun to be and none after them has;
   * once more before they are written in another way, whatever has begun since.
   *
   * @param runs lengths in bytes of their alternating runs of data and zeroes, the first of data
   */
  async before({ start, length, dataEnd = 0 }: RunStep, runs: ArrayLike<number>): Promise<void> {
    const end = start + length;
    const isAgain = start < this.#begunTo;
    this.#begunTo = Math.max(this.#begunTo, end);
    if (start < this.#end) {
      await this.#giveBack(zeroesOf(runs, start));
      if (this.#holes > mostHoles && !isAgain) await this.#giveBackRest(end);
    } else if (isAgain) {
      return;
    } else if (this.#restrainedBytes > 0) {
      this.#restrainedBytes -= length;
    } else if (runs.length === 1 && dataEnd - start >= leastBytes) {
      this.#holes = 0;
      // The first block of a new file is written when it is made, and would lie apart.
      if (start === 0) await this.#target.discard(start, length);
      if (await this.#target.reserve(start, dataEnd - start)) this.#end = dataEnd;
      else this.#restrainedBytes = Infinity;
    }
  }

  /** To be called after data were copied, with the parts of them that were not left out. */
  async after({ start, length }: RunStep, parts: readonly CopiedPart[]): Promise<void> {
    if (start < this.#end) await this.#giveBack(gapsBetween(parts, start, length));
  }

  async #giveBack(holes: readonly Hole[]): Promise<void> {
    this.#holes += holes.length;
    await Promise.all(holes.map(({ start, length }) => this.#target.discard(start, length)));
  }

  async #giveBackRest(offset: number): Promise<void> {
    this.#restrainedBytes = restraintBytes;
    if (offset < this.#end) await this.#target.discard(offset, this.#end - offset);
    this.#end = offset;
  }
}

/** The runs of zeroes among alternating runs, the first of data. */
function zeroesOf(runs: ArrayLike<number>, offset: number): Hole[] {
  const holes: Hole[] = [];
  for (let index = 0, start = offset; index < runs.length; start += runs[index], index++) {
    if (index % 2 === 1) holes.push({ start, length: runs[index] });
  }
  return holes;
}

/** What lies between the parts of a range, before the first and after the last. */
function gapsBetween(parts: readonly CopiedPart[], offset: number, length: number): Hole[] {
  const holes: Hole[] = [];
  let end = 0;
  for (const part of [...parts, { at: length, length: 0 }]) {
    if (part.at > end) holes.push({ start: offset + end, length: part.at - end });
    end = part.at + part.length;
  }
  return holes;
}

function isOfLargeData({ dataBytes, segments }: Step): boolean {
  const holes = segments.filter(({ bytes }) => bytes === undefined);
  return dataBytes > 0 && holes.length <= mostKnownHoles;
}

function continues(run: readonly Step[], step: Step): boolean {
  const last = run[run.length - 1];
  const end = step.start + step.length;
  return step.start === last.start + last.length && end - run[0].start <= mostBytes;
}

function* withEnd(run: readonly Step[]): Generator<RunStep> {
  const last = run.at(-1);
  if (last === undefined) return;
  const dataEnd = last.start + last.length;
  for (const step of run) yield { ...step, dataEnd };
}
