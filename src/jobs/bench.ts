/** Benchmarking an image: the same requests as `qemu-img bench` makes, on one or several queues. */
import type { Worker } from 'node:worker_threads';
import { CowherdError, problemWith } from '../errors.js';
import { queueCount } from '../image/options/open-options.js';
import {
  type OptionRules,
  abortSignal,
  checkOptions,
  flag,
  oneOf,
  wholeNumber,
} from '../image/options/option-check.js';
import type { Image } from '../image/api/image.js';
import type { AbortSignalLike } from '../image/api/long-operation.js';
import type { ImageStats } from '../image/api/stats.js';
import { reviveError } from '../image/threads/error-transfer.js';
import type { BenchAnswer } from './bench-worker.js';
import { noWorkerModule, workerModule } from '../package-folder.js';
import {
  type LatencyCounts,
  type LatencyPercentiles,
  type LoadOrders,
  RequestLoad,
  percentiles,
} from './request-load.js';

/** What to measure. */
export interface BenchOptions {
  /** Requests in all. */
  readonly count: number;
  /** Requests under way at a time on each queue. */
  readonly depth: number;
  readonly bufferBytes: number;
  /** Bytes from one request to the next; default the size of a request. */
  readonly stepBytes?: number | undefined;
  /** Guest offset in bytes of the first request. */
  readonly offset?: number | undefined;
  /** Whether requests follow each other or go to random places; default `seq`. */
  readonly access?: 'seq' | 'rand' | undefined;
  /** Percentage of the requests that read, the others write; default 100. */
  readonly readPercent?: number | undefined;
  /** The byte that is written; default 0. */
  readonly fill?: number | undefined;
  /** Requests between two flushes; default none. */
  readonly flushInterval?: number | undefined;
  /** Whether a flush waits for the requests before it; default true. */
  readonly drain?: boolean | undefined;
  /** Queues, each on a thread of its own if there are several; default 1. */
  readonly queues?: number | undefined;
  readonly signal?: AbortSignalLike | undefined;
}

const benchRules: OptionRules<BenchOptions> = {
  count: wholeNumber(0),
  depth: wholeNumber(1, 0x7fffffff),
  bufferBytes: wholeNumber(1),
  stepBytes: wholeNumber(0),
  offset: wholeNumber(0),
  access: oneOf('seq', 'rand'),
  readPercent: wholeNumber(0, 100),
  fill: wholeNumber(0, 255),
  flushInterval: wholeNumber(0),
  drain: flag,
  queues: queueCount,
  signal: abortSignal,
};

/** What was measured. */
export interface BenchResult {
  readonly requests: number;
  readonly seconds: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  /** In microseconds, from one request in four. */
  readonly latency: LatencyPercentiles;
  readonly stats: ImageStats;
}

/**
 * Makes requests on an open image and measures them.
 *
 * @throws what the first failing request throws; ERR_COWHERD_ABORTED if the signal said so
 */
export async function bench(image: Image, options: BenchOptions): Promise<BenchResult> {
  checkOptions(options, benchRules, image.filename, ['count', 'depth', 'bufferBytes']);
  const { count, bufferBytes, queues = 1, signal } = options;
  const orders = Array.from({ length: queues }, (_, queue) => ordersOf(options, queue));
  const measured =
    queues === 1
      ? await runHere(image, orders[0], signal)
      : await runOnThreads(image, orders, signal);
  const { seconds, latencies } = measured;
  return {
    requests: count,
    seconds,
    requestsPerSecond: count / seconds,
    bytesPerSecond: (count * bufferBytes) / seconds,
    latency: percentiles(latencies),
    stats: image.stats(),
  };
}

/** The load of one queue: every so-manieth request of the whole. */
function ordersOf(options: BenchOptions, queue: number): LoadOrders {
  const { count, depth, bufferBytes, queues = 1, flushInterval = 0 } = options;
  const step = options.stepBytes ?? bufferBytes;
  return {
    count: Math.floor(count / queues) + (queue < count % queues ? 1 : 0),
    depth,
    bufferBytes,
    offset: (options.offset ?? 0) + queue * step,
    stepBytes: step * queues,
    access: options.access ?? 'seq',
    readPercent: options.readPercent ?? 100,
    fill: options.fill ?? 0,
    flushInterval,
    drain: options.drain ?? true,
    seed: 0x2545f491 + queue * 7919,
  };
}

interface Measured {
  readonly seconds: number;
  readonly latencies: readonly LatencyCounts[];
}

async function runHere(
  image: Image,
  orders: LoadOrders,
  signal: AbortSignal | undefined,
): Promise<Measured> {
  const load = new RequestLoad(image, image.size, orders, signal);
  const begun = performance.now();
  try {
    await load.run();
  } catch (error) {
    throw signal?.aborted === true ? aborted(image) : error;
  }
  return { seconds: (performance.now() - begun) / 1000, latencies: [load.latencies] };
}

async function runOnThreads(
  image: Image,
  orders: readonly LoadOrders[],
  signal: AbortSignal | undefined,
): Promise<Measured> {
  // Only here: it is slow to load for a program that needs no threads.
  const threads = await import('node:worker_threads');
  const handle = image.handle();
  const module = workerModule('bench-worker.js', import.meta.url);
  if (module === undefined) {
    const { filename } = image;
    throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, noWorkerModule);
  }
  const workers = orders.map(
    (each) => new threads.Worker(module, { workerData: { handle, orders: each }, execArgv: [] }),
  );
  const ends = workers.map((worker) => ended(worker));
  const stop = (): void => {
    for (const worker of workers) worker.postMessage('stop');
  };
  signal?.addEventListener('abort', stop);
  try {
    await Promise.all(workers.map((worker) => nextMessage(worker)));
    const begun = performance.now();
    const answers = workers.map((worker) => latenciesOf(worker));
    for (const worker of workers) worker.postMessage('begin');
    const latencies = await Promise.all(answers);
    const seconds = (performance.now() - begun) / 1000;
    return { seconds, latencies };
  } catch (error) {
    stop();
    throw signal?.aborted === true ? aborted(image) : error;
  } finally {
    signal?.removeEventListener('abort', stop);
    await Promise.all(ends);
  }
}

function nextMessage<Message>(worker: Worker): Promise<Message> {
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', (code) => {
      reject(new Error(`a thread of the benchmark ended with code ${code}`));
    });
  });
}

async function latenciesOf(worker: Worker): Promise<LatencyCounts> {
  const answer = await nextMessage<BenchAnswer>(worker);
  if ('error' in answer) throw reviveError(answer.error);
  return answer.latencies;
}

/** Asked for as a thread begins: not every runtime tells of an end that is past. */
function ended(worker: Worker): Promise<void> {
  return new Promise((resolve) => {
    worker.once('exit', () => {
      resolve();
    });
  });
}

function aborted({ filename }: Image): CowherdError {
  return new CowherdError('ERR_COWHERD_ABORTED', `The benchmark of '${filename}' was cancelled`, {
    filename,
  });
}
