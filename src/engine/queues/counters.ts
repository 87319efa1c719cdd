/**
 * Counters of what each queue has done, in shared memory so that any thread can read them while they
 * change. A queue writes its own line only, with plain stores: no word of the hot path is shared.
 */
import { maxQueues } from '../words/control-block.js';

/** Buckets of a latency histogram: bucket `n` counts latencies below `2^n` microseconds. */
export const latencyBuckets = 26;
/** One request in so many is timed. */
const latencySampling = 16;

/** Counters of a line. */
export const Counter = {
  reads: 0,
  writes: 1,
  writeZeroes: 2,
  discards: 3,
  compressedWrites: 4,
  flushes: 5,
  failures: 6,
  /** Requests that have ended, whichever way. */
  ended: 7,
  bytesRead: 8,
  bytesWritten: 9,
  /** Requests that found the slice they needed in the cache, on the short way. */
  cacheHits: 10,
  /** Slices loaded from the disk, and slices evicted for them. */
  cacheLoads: 11,
  evictions: 12,
  /** Waits by cause: a claim of another request, a slice being loaded, room in the cache, … */
  claimWaits: 13,
  loadWaits: 14,
  roomWaits: 15,
  gateWaits: 16,
  throttleWaits: 17,
  allocatedClusters: 18,
  reclaimedClusters: 19,
  /** Flush rounds led, and rounds of others that were shared. */
  roundsLed: 20,
  roundsShared: 21,
  latency: 22,
} as const;

const valuesPerLine = 48;

/** The shared memory of an image's counters; structured-cloneable. */
export interface CounterMemory {
  /** A word for each line: 0 unused, 1 in use, 2 left by its queue. */
  readonly states: SharedArrayBuffer;
  readonly values: SharedArrayBuffer;
}

const LineState = { unused: 0, inUse: 1, left: 2 } as const;

/** Makes the memory of an image that is being opened. */
export function allocateCounters(): CounterMemory {
  return {
    states: new SharedArrayBuffer(maxQueues * 4),
    values: new SharedArrayBuffer(maxQueues * valuesPerLine * 8),
  };
}

/** The counters of one queue. */
export class QueueCounters {
  readonly #values: Float64Array;
  readonly #states: Int32Array;
  readonly #line: number;
  #untimed = 1;

  private constructor(memory: CounterMemory, states: Int32Array, line: number) {
    const start = line * valuesPerLine * 8;
    this.#values = new Float64Array(memory.values, start, valuesPerLine);
    this.#states = states;
    this.#line = line;
  }

  /** Takes a line, by preference one that no queue had before. */
  static take(memory: CounterMemory): QueueCounters {
    const states = new Int32Array(memory.states);
    for (const state of [LineState.unused, LineState.left]) {
      for (let line = 0; line < maxQueues; line++) {
        if (Atomics.compareExchange(states, line, state, LineState.inUse) !== state) continue;
        const counters = new QueueCounters(memory, states, line);
        counters.#values.fill(0);
        return counters;
      }
    }
    // More queues than lines: what the last of them count is not reported.
    const spare = { states: memory.states, values: new SharedArrayBuffer(valuesPerLine * 8) };
    return new QueueCounters(spare, new Int32Array(new SharedArrayBuffer(4)), 0);
  }

  /** Counts; `counter` is one of `Counter`. */
  add(counter: number, amount = 1): void {
    this.#values[counter] = this.#values[counter] + amount;
  }

  /** Marks a request's begin. @returns what `end` takes: its time if it is one that is timed, or 0 */
  begin(): number {
    if (--this.#untimed > 0) return 0;
    this.#untimed = latencySampling;
    return performance.now();
  }

  /** Marks a request's end. */
  end(begun: number): void {
    this.add(Counter.ended);
    if (begun === 0) return;
    const microseconds = Math.max(1, (performance.now() - begun) * 1000);
    const bucket = Math.min(latencyBuckets - 1, Math.floor(Math.log2(microseconds)) + 1);
    this.add(Counter.latency + bucket);
  }

  /** Runs a request from its begin to its end, and counts whether it failed. */
  async run<Result>(request: () => Promise<Result>): Promise<Result> {
    const begun = this.begin();
    try {
      return await request();
    } catch (error) {
      this.add(Counter.failures);
      throw error;
    } finally {
      this.end(begun);
    }
  }

  /** Leaves the line; what it counted stays readable. */
  release(): void {
    Atomics.store(this.#states, this.#line, LineState.left);
  }
}

/** What one queue has counted. */
export interface CounterReading {
  readonly line: number;
  /** Whether the queue is still open. */
  readonly open: boolean;
  /** By `Counter`. */
  readonly values: Float64Array;
}

/** The counters of every queue that an image has or had, as they are right now. */
export function readCounters(memory: CounterMemory): CounterReading[] {
  const states = new Int32Array(memory.states);
  const readings: CounterReading[] = [];
  for (let line = 0; line < maxQueues; line++) {
    const state = Atomics.load(states, line);
    if (state === LineState.unused) continue;
    const values = new Float64Array(memory.values, line * valuesPerLine * 8, valuesPerLine).slice();
    readings.push({ line, open: state === LineState.inUse, values });
  }
  return readings;
}
