/** A load of requests on one queue: so many at a time, timed, with flushes in between if wanted. */
import { TurnOfOthers } from '../turn-of-others.js';
import type { RequestTarget } from '../image/api/image.js';
import { alignedBuffer } from '../native/aligned-buffer.js';

/** What one queue is to do; structured-cloneable. */
export interface LoadOrders {
  /** Requests of this queue. */
  readonly count: number;
  /** Requests under way at a time. */
  readonly depth: number;
  readonly bufferBytes: number;
  /** Guest offset in bytes of the first request. */
  readonly offset: number;
  /** Bytes from one request of this queue to the next, where they follow a sequence. */
  readonly stepBytes: number;
  readonly access: 'seq' | 'rand';
  /** Percentage of the requests that read; the others write. */
  readonly readPercent: number;
  /** The byte that is written. */
  readonly fill: number;
  /** Requests between two flushes; 0 for none. */
  readonly flushInterval: number;
  /** Whether a flush waits for the requests before it, and those after it for the flush. */
  readonly drain: boolean;
  /** Seed of random offsets and kinds. */
  readonly seed: number;
}

/** Latencies by size: bucket `n` holds those of about `2^(n / bucketsPerOctave)` microseconds. */
export type LatencyCounts = Float64Array;

const bucketsPerOctave = 32;
const octaves = 27;
/** One request in so many is timed. */
const sampling = 4;

/** The load of one queue. */
export class RequestLoad {
  readonly #target: RequestTarget;
  readonly #size: number;
  readonly #orders: LoadOrders;
  readonly #signal: AbortSignal | undefined;
  readonly latencies: LatencyCounts = new Float64Array(bucketsPerOctave * octaves);
  #next = 0;
  #offset: number;
  #random: number;
  #underWay = 0;
  /** Set while requests wait for a flush. */
  readonly #others = new TurnOfOthers();
  #flushing: Promise<void> | undefined;
  #whenIdle: (() => void) | undefined;

  /** @param size bytes of the disk */
  constructor(target: RequestTarget, size: number, orders: LoadOrders, signal?: AbortSignal) {
    this.#target = target;
    this.#size = size;
    this.#orders = orders;
    this.#signal = signal;
    this.#offset = orders.offset;
    this.#random = orders.seed | 1;
  }

  /** Makes every request. @throws what the first failing one throws, after all have ended */
  async run(): Promise<void> {
    const { count, depth, bufferBytes, fill } = this.#orders;
    const lanes: Promise<void>[] = [];
    const memory = alignedBuffer(Math.min(count, depth) * bufferBytes).fill(fill);
    // Apart from the lanes' own buffers, which reads change.
    const content = alignedBuffer(bufferBytes).fill(fill);
    for (let start = 0; start < memory.length; start += bufferBytes) {
      lanes.push(this.#runLane(memory.subarray(start, start + bufferBytes), content));
    }
    const ended = await Promise.allSettled(lanes);
    for (const lane of ended) if (lane.status === 'rejected') throw lane.reason as Error;
  }

  async #runLane(buffer: Uint8Array, content: Uint8Array): Promise<void> {
    const { count, readPercent, flushInterval } = this.#orders;
    const source = readPercent > 0 ? content : buffer;
    while (this.#next < count) {
      const index = this.#next++;
      if ((index & 15) === 0) {
        if (this.#others.due) await this.#others.take();
        this.#signal?.throwIfAborted();
      }
      if (flushInterval > 0 && index > 0 && index % flushInterval === 0) await this.#flush();
      if (this.#flushing !== undefined) await this.#flushing;
      const offset = this.#nextOffset();
      const reads = readPercent === 100 || (readPercent > 0 && this.#nextRandom() < readPercent);
      const begun = index % sampling === 0 ? performance.now() : 0;
      this.#underWay++;
      try {
        if (reads) await this.#target.read(buffer, offset);
        else await this.#target.write(source, offset);
      } finally {
        this.#underWay--;
        if (this.#underWay === 0) this.#whenIdle?.();
      }
      if (begun !== 0) this.#note((performance.now() - begun) * 1000);
    }
  }

  async #flush(): Promise<void> {
    if (!this.#orders.drain) {
      await this.#target.flush();
      return;
    }
    // One flush at a time, after the one before it.
    while (this.#flushing !== undefined) await this.#flushing;
    this.#flushing = (async () => {
      if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
      this.#whenIdle = undefined;
      await this.#target.flush();
    })().finally(() => (this.#flushing = undefined));
    await this.#flushing;
  }

  #nextOffset(): number {
    const { bufferBytes, stepBytes, access } = this.#orders;
    const room = this.#size - bufferBytes;
    if (access === 'rand') {
      const places = Math.max(1, Math.floor(this.#size / bufferBytes));
      return (this.#nextRandomWord() % places) * bufferBytes;
    }
    const offset = this.#offset;
    this.#offset = room <= 0 ? 0 : (offset + stepBytes) % room;
    return offset;
  }

  /** A number from 0 to 99. */
  #nextRandom(): number {
    return this.#nextRandomWord() % 100;
  }

  /** Marsaglia's xorshift of 32 bits (Journal of Statistical Software 8/14, 2003). */
  #nextRandomWord(): number {
    let word = this.#random;
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    this.#random = word;
    return word >>> 0;
  }

  #note(microseconds: number): void {
    const bucket = Math.round(Math.log2(Math.max(1, microseconds)) * bucketsPerOctave);
    const last = this.latencies.length - 1;
    this.latencies[Math.min(bucket, last)]++;
  }
}

/** Latencies that so many per cent of the requests stayed below, in microseconds. */
export interface LatencyPercentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

/** The percentiles of the sums of several counts. */
export function percentiles(all: readonly LatencyCounts[]): LatencyPercentiles {
  const sums = new Float64Array(bucketsPerOctave * octaves);
  for (const counts of all) counts.forEach((count, bucket) => (sums[bucket] += count));
  const total = sums.reduce((sum, count) => sum + count, 0);
  const at = (share: number): number => {
    let seen = 0;
    for (let bucket = 0; bucket < sums.length; bucket++) {
      seen += sums[bucket];
      if (seen > 0 && seen >= total * share) return rounded(2 ** (bucket / bucketsPerOctave));
    }
    return 0;
  };
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1) };
}

function rounded(microseconds: number): number {
  return Number(microseconds.toPrecision(3));
}
