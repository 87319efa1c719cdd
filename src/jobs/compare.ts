/**
 * Whether two images show the same content: walks how both are stored, skips what both know to be
 * zeroes, and compares the rest of both sides: where it lies as it is by the host, window by window, and
 * what differs there or lies otherwise by reading it with several requests in flight. Never writes.
 */
import type { Image, RequestTarget } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import type { AioMode, CacheMode } from '../image/api/options.js';
import type { Extent, ImageFormat } from '../image/api/reports.js';
import { type DataSegment, plainBytes, sameData } from '../image/graph/data-copy.js';
import { closeEach } from '../image/graph/cleanup-steps.js';
import { isImage } from '../image/graph/is-image.js';
import { openImage } from '../image/graph/open.js';
import { aioMode, cacheMode, imageFormat, queueCount } from '../image/options/open-options.js';
import {
  type OptionRules,
  abortSignal,
  callback,
  checkOptions,
  flag,
  wholeNumber,
} from '../image/options/option-check.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import { alignedBuffer } from '../native/aligned-buffer.js';
import { CowherdError } from '../errors.js';
import { locateReadFailure } from './read-failure.js';
import { withQueues } from './queues.js';
import { firstDifference, firstNonZero } from './differences.js';
import { type ExtentPair, zipExtents } from './zip-extents.js';

/** How two open images are compared. */
export interface CompareImagesOptions extends LongOperationOptions {
  /** Sizes have to be equal, and every range has to be stored alike. Default false. */
  readonly strict?: boolean | undefined;
  /** Requests in flight on each side; default 4. */
  readonly parallel?: number | undefined;
  /** Queues that each image is read through; default 1. */
  readonly queues?: number | undefined;
}

/** How two image files are opened and compared. */
export interface CompareOptions extends CompareImagesOptions {
  /** Left out, the format is probed. */
  readonly formatA?: ImageFormat | undefined;
  readonly formatB?: ImageFormat | undefined;
  readonly cache?: CacheMode | undefined;
  readonly aio?: AioMode | undefined;
  readonly forceShare?: boolean | undefined;
}

const compareRules: OptionRules<CompareOptions> = {
  formatA: imageFormat,
  formatB: imageFormat,
  cache: cacheMode,
  aio: aioMode,
  forceShare: flag,
  strict: flag,
  parallel: wholeNumber(1, 1024),
  queues: queueCount,
  signal: abortSignal,
  onProgress: callback,
};

/** What a comparison found. */
export interface CompareResult {
  readonly identical: boolean;
  /** Virtual sizes in bytes. Unless strict, what is longer has to be zeroes beyond the other's end. */
  readonly sizeA: number;
  readonly sizeB: number;
  /**
   * The first difference where they are not identical. `size` and `status` (how a range is stored)
   * make a difference in strict mode only; its offset is a guest offset in bytes.
   */
  readonly difference?: { readonly kind: 'size' | 'status' | 'content'; readonly offset: number };
}

/**
 * Compares the content of two images, which are files, or open and stay so.
 *
 * @throws CowherdError if one of them cannot be opened or read
 */
export async function compare(
  a: PathLike | Image,
  b: PathLike | Image,
  options: CompareOptions = {},
): Promise<CompareResult> {
  const { cache, aio, forceShare, formatA, formatB } = options;
  checkOptions(options, compareRules, isImage(a) ? a.filename : pathOf(a));
  const common = { readOnly: true, cache, aio, forceShare };
  const opened: Image[] = [];
  const open = async (given: PathLike | Image, format: ImageFormat | undefined): Promise<Image> => {
    if (isImage(given)) return given;
    const image = await openImage(given, { ...common, format });
    opened.push(image);
    return image;
  };
  try {
    return await compareImages(await open(a, formatA), await open(b, formatB), options);
  } finally {
    await closeEach(opened);
  }
}

/** Compares the content of two open images, which stay open. */
export async function compareImages(
  a: Image,
  b: Image,
  options: CompareImagesOptions = {},
): Promise<CompareResult> {
  const sizes = { sizeA: a.size, sizeB: b.size };
  const strict = options.strict ?? false;
  if (strict && a.size !== b.size) {
    const offset = Math.min(a.size, b.size);
    return { identical: false, ...sizes, difference: { kind: 'size', offset } };
  }
  const { queues = 1 } = options;
  const difference = await withQueues(a, queues, (queuesA) =>
    withQueues(b, queues, (queuesB) => {
      const sides = [
        { image: a, queues: queuesA },
        { image: b, queues: queuesB },
      ] as const;
      return new Comparison(sides, strict, options).run();
    }),
  ).catch((error: unknown) => {
    throw options.signal?.aborted === true ? aborted(error) : error;
  });
  return difference === undefined
    ? { identical: true, ...sizes }
    : { identical: false, ...sizes, difference };
}

type Difference = NonNullable<CompareResult['difference']>;

/** Bytes read at once from each side. */
const requestBytes = 2 * 1024 * 1024;
/** Bytes compared at once where they lie: so many that what a comparison costs beside is little. */
const windowBytes = 16 * 1024 * 1024;
/** Ranges that are no further apart are read as one: a request costs more than what it skips. */
const joinedGapBytes = 64 * 1024;

/** A guest range to be read: on both sides, or on the one that is not known to be zeroes. */
interface Work {
  readonly offset: number;
  length: number;
  readA: boolean;
  readB: boolean;
  /** Where the bytes of both sides lie; undefined where they have to be read to know them. */
  readonly plain: PlainPair | undefined;
}

/** Where the bytes of a range lie. */
interface PlainPair {
  readonly a: DataSegment[];
  readonly b: DataSegment[];
}

/** One of the images, and the queues that read it. */
interface Side {
  readonly image: Image;
  readonly queues: readonly RequestTarget[];
}

/** A difference, or a failure at a guest offset in bytes. */
type Finding = Difference | { readonly offset: number; readonly error: unknown };

/** Where a failure lies in the disk; one that lies nowhere comes before all others. */
function offsetOf(error: unknown): number {
  return error instanceof CowherdError ? (error.offset ?? -1) : -1;
}

class Comparison {
  readonly #total: number;
  readonly #parallel: number;
  /** In the order of the disk. */
  readonly #inFlight = new Map<Work, Promise<void>>();
  readonly #freeBuffers: Uint8Array[] = [];
  /** What lies first in the disk of all that was found or could not be read. */
  #first: Finding | undefined;
  /** Guest offset up to which everything is compared or in flight. */
  #position = 0;
  /** What progress was last told: all before this guest offset is known to be equal. */
  #toldBytes = 0;
  /** Counts pieces, which go round the queues. */
  #turn = 0;

  constructor(
    private readonly sides: readonly [Side, Side],
    private readonly strict: boolean,
    private readonly options: CompareImagesOptions,
  ) {
    const [a, b] = sides;
    this.#total = Math.max(a.image.size, b.image.size);
    this.#parallel = Math.max(1, options.parallel ?? 4);
  }

  async run(): Promise<Difference | undefined> {
    try {
      await this.#walk();
    } catch (error) {
      this.#note({ offset: offsetOf(error), error });
    }
    // Buffers belong to their requests until these have ended, whatever became of the walk.
    await Promise.all(this.#inFlight.values());
    const first = this.#first;
    if (first === undefined) return undefined;
    if ('error' in first) throw first.error as Error;
    return first;
  }

  async #walk(): Promise<void> {
    const { signal } = this.options;
    const [a, b] = this.sides;
    const pairs = zipExtents(a.image, b.image, signal);
    let pending: Work | undefined;
    for (;;) {
      let next;
      try {
        next = await pairs.next();
      } catch (error) {
        // What was held back lies before it.
        if (pending !== undefined) await this.#start(pending);
        throw error;
      }
      if (next.done === true) break;
      const pair = next.value;
      signal?.throwIfAborted();
      if (this.#ended()) return;
      if (this.strict && !storedAlike(pair.a, pair.b, this.#total)) {
        if (pending !== undefined) await this.#start(pending);
        await Promise.all(this.#inFlight.values());
        this.#note({ kind: 'status', offset: pair.offset });
        return;
      }
      const end = pair.offset + pair.length;
      const readA = !readsAsZeroes(pair.a);
      const readB = !readsAsZeroes(pair.b);
      if (!readA && !readB) {
        if (pending === undefined) this.#passTo(end);
        continue;
      }
      const plain = this.#plainPair(pair);
      const most = plain === undefined ? requestBytes : windowBytes;
      if (
        pending !== undefined &&
        end - pending.offset <= most &&
        (plain === undefined) === (pending.plain === undefined)
      ) {
        const gap = pair.offset - (pending.offset + pending.length);
        if (gap <= joinedGapBytes) {
          pending.length = end - pending.offset;
          pending.readA ||= readA;
          pending.readB ||= readB;
          if (plain !== undefined) join(pending.plain!, plain, gap);
          continue;
        }
      }
      if (pending !== undefined) {
        await this.#start(pending);
        this.#passTo(pair.offset);
      }
      pending = undefined;
      for (let offset = pair.offset; offset < end; offset += most) {
        const length = Math.min(most, end - offset);
        const part = length === pair.length ? plain : this.#plainPair({ ...pair, offset, length });
        const work = { offset, length, readA, readB, plain: part };
        if (work.offset + work.length === end) pending = work;
        else await this.#start(work);
        if (this.#ended()) return;
      }
    }
    if (pending === undefined || this.#ended()) return;
    await this.#start(pending);
    this.#passTo(this.#total);
  }

  #ended(): boolean {
    return this.#first !== undefined;
  }

  /** Starts a piece of work as soon as fewer than the allowed number are under way. */
  async #start(work: Work): Promise<void> {
    while (this.#inFlight.size >= this.#parallel) await Promise.race(this.#inFlight.values());
    if (this.#ended()) return;
    this.options.signal?.throwIfAborted();
    const running = this.#perform(work)
      .catch((error: unknown) => {
        this.#note({ offset: offsetOf(error), error });
      })
      .finally(() => {
        this.#inFlight.delete(work);
        this.#tell();
      });
    this.#inFlight.set(work, running);
    this.#position = work.offset + work.length;
  }

  /** Where a range lies in both, if it lies there as it is and stays there. */
  #plainPair({ offset, length, a, b }: ExtentPair): PlainPair | undefined {
    const [sideA, sideB] = this.sides;
    const segmentA = plainSegment(sideA.image, a, offset, length);
    const segmentB = segmentA && plainSegment(sideB.image, b, offset, length);
    return segmentB && { a: [segmentA], b: [segmentB] };
  }

  async #perform(work: Work): Promise<void> {
    const { offset, length, plain } = work;
    if (plain !== undefined && (await sameData(plain.a, plain.b, length)) === true) return;
    for (let start = offset; start < offset + length; start += requestBytes) {
      if (this.#first !== undefined && this.#first.offset < start) return;
      const end = Math.min(start + requestBytes, offset + length);
      await this.#read({ ...work, offset: start, length: end - start });
    }
  }

  async #read({ offset, length, readA, readB }: Work): Promise<void> {
    const bytesA = readA ? this.#takeBuffer() : undefined;
    const bytesB = readB ? this.#takeBuffer() : undefined;
    const [a, b] = this.sides;
    const turn = this.#turn++;
    const results = await Promise.allSettled([
      bytesA && readWithin(a, turn, bytesA.subarray(0, length), offset),
      bytesB && readWithin(b, turn, bytesB.subarray(0, length), offset),
    ]);
    let readable = length;
    for (const [index, result] of results.entries()) {
      if (result.status === 'fulfilled') continue;
      const side = this.sides[index];
      const bytes = (index === 0 ? bytesA : bytesB)?.subarray(0, length) ?? new Uint8Array(0);
      const error = await locateReadFailure(result.reason, offset, bytes, (part, at) =>
        readWithin(side, 0, part, at),
      );
      this.#note({ offset: offsetOf(error), error });
      readable = Math.min(readable, Math.max(0, offsetOf(error) - offset));
    }
    // What lies before a failure is compared all the same.
    const at = whereDifferent(bytesA?.subarray(0, readable), bytesB?.subarray(0, readable));
    if (bytesA) this.#freeBuffers.push(bytesA);
    if (bytesB) this.#freeBuffers.push(bytesB);
    if (at !== -1) this.#note({ kind: 'content', offset: offset + at });
  }

  /** Pieces end in any order: the first finding is the one with the lowest offset. */
  #note(finding: Finding): void {
    if (this.#first === undefined || finding.offset < this.#first.offset) this.#first = finding;
  }

  /** What lies before a guest offset and was not started is known to be zeroes on both sides. */
  #passTo(offset: number): void {
    this.#position = offset;
    this.#tell();
  }

  #tell(): void {
    const [first] = this.#inFlight.keys() as Iterable<Work | undefined>;
    const doneBytes = first?.offset ?? this.#position;
    if (this.#ended() || doneBytes <= this.#toldBytes) return;
    this.#toldBytes = doneBytes;
    this.options.onProgress?.({ doneBytes, totalBytes: this.#total });
  }

  #takeBuffer(): Uint8Array {
    return this.#freeBuffers.pop() ?? alignedBuffer(requestBytes);
  }
}

function readsAsZeroes(extent: Extent | undefined): boolean {
  return extent === undefined || extent.zero || !extent.present;
}

/** Where part of an extent lies; undefined where it has to be read, or may be written to meanwhile. */
function plainSegment(
  image: Image,
  extent: Extent | undefined,
  offset: number,
  length: number,
): DataSegment | undefined {
  if (extent === undefined || readsAsZeroes(extent)) return { bytes: undefined, length };
  const bytes = image.readOnly ? plainBytes(image, extent) : undefined;
  return bytes && { bytes: { ...bytes, offset: bytes.offset + offset - extent.start }, length };
}

/** Appends what lies behind a gap that is zeroes in both. */
function join(first: PlainPair, next: PlainPair, gap: number): void {
  for (const side of ['a', 'b'] as const) {
    if (gap > 0) first[side].push({ bytes: undefined, length: gap });
    first[side].push(...next[side]);
  }
}

/** Whether QEMU sees the same state in both, which includes whether it lasts to the end. */
function storedAlike(a: Extent | undefined, b: Extent | undefined, size: number): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.present === b.present &&
    a.zero === b.zero &&
    a.data === b.data &&
    a.compressed === b.compressed &&
    (a.offset === undefined) === (b.offset === undefined) &&
    (a.start + a.length === size) === (b.start + b.length === size)
  );
}

/** Reads what lies within the image; beyond its end there are zeroes. */
async function readWithin(
  { image, queues }: Side,
  turn: number,
  buffer: Uint8Array,
  offset: number,
): Promise<void> {
  const inside = Math.max(0, Math.min(buffer.length, image.size - offset));
  buffer.fill(0, inside);
  if (inside > 0) await queues[turn % queues.length].read(buffer.subarray(0, inside), offset);
}

function whereDifferent(a: Uint8Array | undefined, b: Uint8Array | undefined): number {
  if (a !== undefined && b !== undefined) return firstDifference(a, b);
  const only = a ?? b;
  return only === undefined ? -1 : firstNonZero(only);
}

function aborted(cause: unknown): CowherdError {
  return new CowherdError('ERR_COWHERD_ABORTED', 'The comparison was cancelled', { cause });
}
