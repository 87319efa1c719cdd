/** Copying a disk piece by piece, many pieces at a time: the engine of `convert`. */
import { CowherdError } from '../errors.js';
import type { RequestTarget } from '../image/api/image.js';
import type { Progress } from '../image/api/long-operation.js';
import type { CopiedPart, ImageFiller } from '../image/graph/data-copy.js';
import { alignedBuffer } from '../native/aligned-buffer.js';
import { isZero, zeroRuns } from '../native/zero-scan.js';
import type { Source } from './concatenation.js';
import { type Piece, cutPieces } from './copy-pieces.js';
import { piecesAtOnce } from './pieces-at-once.js';
import { type ReadAgain, badSectors, locateReadFailure } from './read-failure.js';
import { RateLimit } from './rate-limit.js';
import { type Step, gatherWindows, stepOf } from './copy-windows.js';
import { ReserveAhead, type RunStep } from './reserve-ahead.js';

/**
 * Bytes of data copied at a time, unless a cluster is larger: so many that the work for each piece
 * costs little beside its copying, and direct transfers are large.
 */
const chunkBytes = 1024 * 1024;

/** Bytes that a window is made of at most by pieces, and that `onProgress` is told of at once. */
const windowPieceBytes = 2 * 1024 * 1024;

/** Windows that are copied where they lie at a time: the next is there when one has ended. */
const mostWindows = 2;

/** What is copied, and how. */
export interface CopyPlan {
  readonly source: Source;
  readonly targets: readonly RequestTarget[];
  /** What copies data where they lie into a target that holds nothing yet, if that can be. */
  readonly filler: ImageFiller | undefined;
  /** Whether writes may begin in any order; otherwise they begin in guest order. */
  readonly outOfOrder: boolean;
  /** Pieces under way at a time; if left out, what the processors and the memory are good for. */
  readonly parallel: number | undefined;
  /** Bytes that pieces of data are aligned to. */
  readonly granularity: number;
  readonly compress: boolean;
  /** Zero bytes in a row that are not written as data; 0 writes all of them. */
  readonly sparseSize: number;
  /** Whether zeroes that the source knows of are written as data too. */
  readonly copyZeroes: boolean;
  /** Guest offset in bytes from which on the target reads as zeroes where nothing is written. */
  readonly zeroFrom: number;
  readonly leaveBacking: boolean;
  /** Whether the target's blocks are reserved ahead; it holds nothing yet, and is written in order. */
  readonly reserveAhead: boolean;
  readonly salvage: boolean;
  /** Bytes a second. */
  readonly rateLimit: number | undefined;
  readonly onWarning: ((message: string) => void) | undefined;
  /**
   * Told how much of the data is copied; what is skipped or zeroed does not count. If rough is enough, how
   * much of the disk has been dealt with.
   */
  readonly onProgress: ((progress: Progress) => void) | undefined;
  readonly roughProgress?: boolean;
  readonly signal: AbortSignal | undefined;
}

/** When the writes of a piece may begin. */
interface Turn {
  readonly begins: Promise<void>;
  /** Lets those of the next piece begin. */
  readonly end: () => void;
}

/** One copy of one disk. */
export class Copier {
  readonly #plan: CopyPlan;
  readonly #rateLimit: RateLimit | undefined;
  readonly #reserveAhead: ReserveAhead | undefined;
  readonly #chunkBytes: number;
  /** Windows under way. */
  readonly #copying = new Set<Promise<unknown>>();
  /** Of what is looked at ahead, told of when the copy gets there: warnings come in the order of the disk. */
  readonly #untold: CowherdError[] = [];
  #doneBytes = 0;
  /** Bytes of data to copy, counted beforehand where somebody is told how far it is; or of the disk. */
  #totalBytes = 0;
  /** Resolves when the writes of the last piece that was begun, and of all before it, have begun. */
  #lastBegun: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  constructor(plan: CopyPlan) {
    this.#plan = plan;
    const { filler, granularity } = plan;
    this.#chunkBytes =
      filler === undefined
        ? Math.max(chunkBytes, granularity)
        : Math.min(filler.mostBytes, Math.max(windowPieceBytes, filler.granule));
    if (plan.reserveAhead) this.#reserveAhead = new ReserveAhead(plan.targets[0]);
    if (plan.rateLimit !== undefined) this.#rateLimit = new RateLimit(plan.rateLimit);
  }

  /** Copies everything; after a failure nothing is under way any more. */
  async run(): Promise<void> {
    const { compress, salvage, onProgress, roughProgress, source } = this.#plan;
    // A damaged disk is read from its begin to its end, and so told of.
    const parallel = salvage
      ? 1
      : (this.#plan.parallel ?? piecesAtOnce(this.#chunkBytes, compress));
    const onFailure = (failure: CowherdError): void => {
      this.#untold.push(failure);
    };
    if (roughProgress === true && !salvage) {
      this.#totalBytes = source.size;
    } else if (onProgress !== undefined || salvage) {
      // What cannot be told is said beforehand too, as qemu-img does.
      for await (const piece of this.#pieces(salvage ? onFailure : undefined)) {
        if (piece.kind === 'data') this.#totalBytes += piece.length;
        this.#warnOfStatus(Infinity);
      }
    }
    const cut = this.#pieces(salvage ? onFailure : undefined);
    const gathered = this.#gather(cut);
    const steps = this.#reserveAhead?.steps(gathered) ?? gathered;
    const lanes = Array.from({ length: parallel }, (_, lane) => this.#runLane(steps, lane));
    await Promise.all(lanes);
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#totalBytes === 0) onProgress?.({ doneBytes: 0, totalBytes: 0 });
  }

  #pieces(onFailure: ((failure: CowherdError) => void) | undefined): AsyncGenerator<Piece> {
    const { source, granularity, leaveBacking, copyZeroes, signal } = this.#plan;
    return cutPieces(source.map(signal, onFailure), {
      granularity,
      chunkBytes: this.#chunkBytes,
      size: source.size,
      leaveBacking,
      copyZeroes,
    });
  }

  async *#gather(pieces: AsyncIterable<Piece>): AsyncGenerator<Step> {
    const { filler, source } = this.#plan;
    if (filler === undefined) {
      for await (const piece of pieces) yield stepOf(piece);
      return;
    }
    const { mostBytes, granule } = filler;
    const portionBytes = this.#chunkBytes;
    const rule = { windowBytes: mostBytes, portionBytes, granule, size: source.size };
    yield* gatherWindows(pieces, rule);
  }

  async #runLane(steps: AsyncGenerator<RunStep>, lane: number): Promise<void> {
    let memory: Uint8Array | undefined;
    const buffer = (length: number): Uint8Array => {
      memory ??= alignedBuffer(this.#chunkBytes);
      return memory.subarray(0, length);
    };
    try {
      while (this.#failure === undefined) {
        this.#plan.signal?.throwIfAborted();
        const next = await steps.next();
        if (next.done === true) return;
        const step = next.value;
        await this.#inTurn((turn) => this.#copyStep(step, buffer, lane, turn));
        this.#warnOfStatus(step.start + step.length - 1);
        this.#tell(step);
      }
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #tell({ start, length, portions }: RunStep): void {
    const { onProgress, roughProgress } = this.#plan;
    if (roughProgress === true) {
      this.#doneBytes = Math.max(this.#doneBytes, start + length);
      onProgress?.({ doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
      return;
    }
    for (const bytes of portions) {
      this.#doneBytes += bytes;
      onProgress?.({ doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
    }
  }

  /** Copies with a turn that comes after those of all pieces before, and ends at the latest with this. */
  async #inTurn(copy: (turn: Turn) => Promise<void>): Promise<void> {
    const begins = this.#plan.outOfOrder ? Promise.resolve() : this.#lastBegun;
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#lastBegun = begins.then(() => ended);
    try {
      await copy({ begins, end });
    } finally {
      end();
    }
  }

  /** @param buffer gives memory of the lane's, of so many bytes */
  async #copyStep(
    step: RunStep,
    buffer: (length: number) => Uint8Array,
    lane: number,
    turn: Turn,
  ): Promise<void> {
    const { kind, start, length } = step;
    if (kind === 'skip') return;
    if (kind === 'zero') {
      await turn.begins;
      await this.#windowsEnded();
      const zeroed = this.#zero(start, length, lane);
      turn.end();
      await zeroed;
      return;
    }
    if (kind === 'copy' && (await this.#copyWindow(step, turn))) return;
    for (let at = start; at < start + length;) {
      const end = Math.min(start + length, at + this.#chunkBytes);
      const partTurn = end < start + length ? { ...turn, end: () => undefined } : turn;
      await this.#copyData(
        { ...step, start: at, length: end - at },
        buffer(end - at),
        lane,
        partTurn,
      );
      at = end;
    }
  }

  /** Copies a window where it lies. @returns false if it has to be copied in another way */
  async #copyWindow(step: RunStep, turn: Turn): Promise<boolean> {
    const { filler } = this.#plan;
    const { segments, start, length } = step;
    await turn.begins;
    if (filler === undefined || this.#failure !== undefined) return false;
    await this.#reserveAhead?.before(step, [length]);
    while (this.#copying.size >= mostWindows) await Promise.race(this.#copying);
    const copying = filler.copy(segments, start, length);
    this.#copying.add(copying);
    turn.end();
    let parts: readonly CopiedPart[] | undefined;
    try {
      parts = await copying;
    } finally {
      this.#copying.delete(copying);
    }
    if (parts === undefined) return false;
    await this.#reserveAhead?.after(step, parts);
    return true;
  }

  /** Waits for the windows that have begun: until they end, nothing else may be written. */
  async #windowsEnded(): Promise<void> {
    if (this.#copying.size > 0) await Promise.allSettled(this.#copying);
  }

  async #copyData(step: RunStep, data: Uint8Array, lane: number, turn: Turn): Promise<void> {
    const { start, length } = step;
    await this.#rateLimit?.take(length, this.#plan.signal);
    await this.#read(data, start, lane);
    const runs = this.#runsOf(data);
    await turn.begins;
    await this.#windowsEnded();
    await this.#reserveAhead?.before(step, runs);
    // They get their places in the order of these calls, and are written side by side.
    const writes = this.#beginWrites(data, runs, start, lane);
    turn.end();
    await settled(writes);
  }

  /** Lengths in bytes of the runs of data and zeroes, in turn, that data are written as. */
  #runsOf(data: Uint8Array): ArrayLike<number> {
    const { compress, sparseSize } = this.#plan;
    return compress || sparseSize === 0 ? [data.length] : zeroRuns(data, sparseSize);
  }

  #beginWrites(
    data: Uint8Array,
    runs: ArrayLike<number>,
    offset: number,
    lane: number,
  ): Promise<void>[] {
    if (this.#failure !== undefined) return [];
    return this.#plan.compress
      ? this.#beginCompressed(data, offset, lane)
      : this.#beginSparse(data, runs, offset, lane);
  }

  async #read(data: Uint8Array, offset: number, lane: number): Promise<void> {
    try {
      await this.#plan.source.read(data, offset, lane);
    } catch (error) {
      const read: ReadAgain = (part, at) => this.#plan.source.read(part, at, lane);
      if (!this.#plan.salvage) throw await locateReadFailure(error, offset, data, read);
      for await (const bad of badSectors(error, offset, data, read)) {
        this.#plan.signal?.throwIfAborted();
        this.#warnOfStatus(offset + bad.at);
        this.#warn('reading', offset + bad.at, bad.error);
      }
    }
  }

  /** Warns of stretches of which nothing is known, up to a guest offset in bytes. */
  #warnOfStatus(last: number): void {
    for (let failure; (failure = this.#untold.at(0)) !== undefined; this.#untold.shift()) {
      const { offset = 0 } = failure;
      if (offset > last) return;
      this.#warn('reading block status at', offset, failure);
    }
  }

  #warn(attempt: string, offset: number, error: unknown): void {
    this.#plan.onWarning?.(`error while ${attempt} offset ${offset}: ${whyOf(error)}`);
  }

  #beginSparse(
    data: Uint8Array,
    runs: ArrayLike<number>,
    offset: number,
    lane: number,
  ): Promise<void>[] {
    const target = this.#target(lane);
    const writes: Promise<void>[] = [];
    let start = 0;
    for (let index = 0; index < runs.length; index++) {
      const length = runs[index];
      if (length > 0) {
        writes.push(
          index % 2 === 0
            ? target.write(data.subarray(start, start + length), offset + start)
            : this.#zeroFound(offset + start, length, lane),
        );
      }
      start += length;
    }
    return writes;
  }

  #beginCompressed(data: Uint8Array, offset: number, lane: number): Promise<void>[] {
    const target = this.#target(lane);
    const writes: Promise<void>[] = [];
    for (let start = 0; start < data.length; start += this.#plan.granularity) {
      const cluster = data.subarray(start, start + this.#plan.granularity);
      writes.push(
        this.#plan.sparseSize > 0 && isZero(cluster)
          ? this.#zeroFound(offset + start, cluster.length, lane)
          : target.writeCompressed(cluster, offset + start),
      );
    }
    return writes;
  }

  async #zero(offset: number, length: number, lane: number): Promise<void> {
    const needed = Math.min(length, this.#plan.zeroFrom - offset);
    if (needed > 0) await this.#target(lane).writeZeroes(offset, needed, { unmap: true });
  }

  /** Zeroes among data are stored above an image also beyond its end, as qemu-img has them. */
  async #zeroFound(offset: number, length: number, lane: number): Promise<void> {
    if (this.#plan.zeroFrom > 0)
      await this.#target(lane).writeZeroes(offset, length, { unmap: true });
  }

  #target(lane: number): RequestTarget {
    const { targets } = this.#plan;
    return targets[lane % targets.length];
  }
}

function whyOf(error: unknown): string {
  if (error instanceof CowherdError && error.reason !== undefined) return error.reason;
  return error instanceof Error ? error.message : String(error);
}

/** Waits for every write, since their buffer is used again, and then fails as the first one did. */
async function settled(writes: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(writes);
  await Promise.all(writes);
}
