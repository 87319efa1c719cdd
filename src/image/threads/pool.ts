/**
 * A pool of threads that serve one image, for programs that run no workers themselves: requests are
 * spread over the queues of all threads. Buffers cross in shared memory; one that lies there already
 * is used as it is, others are copied once.
 */
import type { Readable, Writable } from 'node:stream';
import { types } from 'node:util';
import { Worker } from 'node:worker_threads';
import { CowherdError, nameMemoryError, problemWith } from '../../errors.js';
import { noWorkerModule, workerModule } from '../../package-folder.js';
import type { Image, ReadStreamOptions, RequestTarget, WriteStreamOptions } from '../api/image.js';
import type { OpenImageOptions } from '../api/options.js';
import type { ImageInfo } from '../api/reports.js';
import type { ImageStats } from '../api/stats.js';
import { type BufferLike, bytesOf, bytesOfEach } from '../api/buffer.js';
import { gather, scatter, totalLength } from '../../storage/vector.js';
import { reviveError } from './error-transfer.js';
import { noteOpen } from '../graph/left-open.js';
import { openImage } from '../graph/open.js';
import { openImageRules, queueCount } from '../options/open-options.js';
import { type OptionRules, checkOptions, oneOf, wholeNumber } from '../options/option-check.js';
import { type PathLike, pathOf } from '../api/path.js';
import type { PoolAnswer, PoolOperation, PoolOrders, PoolRequest } from './pool-messages.js';
import { createReadStream } from '../streams/read-stream.js';
import { createWriteStream } from '../streams/write-stream.js';

/** Arguments of `openPool`. */
export interface PoolOptions extends OpenImageOptions {
  /** Queues in all, from 1 to 255. */
  readonly queues: number;
  /** Threads that hold them; default one a queue. */
  readonly threads?: number | undefined;
  /**
   * Which queue takes a request: the next one in turn, or always the same one for a region of the
   * disk, which keeps requests for one L2 table on one thread. Default `round-robin`.
   */
  readonly affinity?: 'round-robin' | 'region' | undefined;
  /** Bytes of a region; default 512 MiB, what one L2 table maps by default. */
  readonly regionBytes?: number | undefined;
}

/** An image that a pool of threads serves. Requests may run concurrently without limit. */
export interface ImagePool
  extends Omit<RequestTarget, 'writeCompressed' | 'reserve' | 'settle'>, AsyncDisposable {
  readonly filename: string;
  /** Virtual size in bytes. */
  readonly size: number;
  info(): Promise<ImageInfo>;
  stats(): ImageStats;
  /** Waits for every request, makes everything durable, and ends the threads. */
  close(): Promise<void>;
}

const poolRules: OptionRules<PoolOptions> = {
  ...openImageRules,
  queues: queueCount,
  threads: queueCount,
  affinity: oneOf('round-robin', 'region'),
  regionBytes: wholeNumber(1),
};

const defaultRegionBytes = 512 * 1024 * 1024;
/** Shared memory kept for buffers that lie elsewhere, in bytes. */
const spareBytes = 16 * 1024 * 1024;

/**
 * Opens an image and starts the threads that serve it.
 *
 * @throws what `openImage` throws; ERR_COWHERD_INVALID_ARGUMENT for a number of queues below one or
 *   above 255; what a thread throws that cannot start
 */
export async function openPool(path: PathLike, options: PoolOptions): Promise<ImagePool> {
  const filename = pathOf(path);
  checkOptions(options, poolRules, filename, ['queues']);
  const { queues, threads = queues, affinity, regionBytes, ...opening } = options;
  const image = await openImage(filename, opening);
  const members: PoolThread[] = [];
  try {
    const count = Math.min(threads, queues);
    for (let index = 0; index < count; index++) {
      const share = Math.floor(queues / count) + (index < queues % count ? 1 : 0);
      members.push(await PoolThread.start({ handle: image.handle(), queues: share }, filename));
    }
  } catch (error) {
    await Promise.allSettled(members.map((member) => member.close()));
    // That a thread has ended is what it fails for, not why.
    await image.close().catch(() => undefined);
    throw error;
  }
  const region = affinity === 'region' ? (regionBytes ?? defaultRegionBytes) : undefined;
  return new ThreadPool(image, members, region);
}

function notStarted(filename: string, why: string, cause?: unknown): CowherdError {
  return problemWith(
    'ERR_COWHERD_IO',
    filename,
    `a thread of the pool could not be started: ${why}`,
    { cause },
  );
}

/** One thread, and the requests it runs. */
class PoolThread {
  readonly queues: number;
  readonly #worker: Worker;
  readonly #filename: string;
  readonly #waiting = new Map<
    number,
    { readonly resolve: () => void; readonly reject: (error: Error) => void }
  >();
  readonly #ended: Promise<void>;
  /** Resolves when the thread has joined the image, or with the reason why it could not. */
  readonly #started: Promise<Error | undefined>;
  #batch: PoolRequest[] = [];
  #lastId = 0;
  #dead = false;

  private constructor(orders: PoolOrders, filename: string) {
    this.queues = orders.queues;
    this.#filename = filename;
    const module = workerModule('pool-worker.js', import.meta.url);
    if (module === undefined) throw notStarted(filename, noWorkerModule);
    // Not with this program's own options, which may be about its own main file.
    this.#worker = new Worker(module, {
      workerData: orders,
      execArgv: [],
    });
    this.#worker.on('message', (answers: readonly PoolAnswer[]) => {
      this.#settle(answers);
    });
    this.#started = new Promise((resolve) => {
      const failed = (cause: unknown): void => {
        resolve(
          notStarted(filename, cause instanceof Error ? cause.message : String(cause), cause),
        );
      };
      this.#worker.once('message', ([{ error }]: readonly PoolAnswer[]) => {
        resolve(error === undefined ? undefined : reviveError(error));
      });
      this.#worker.once('error', failed);
      this.#worker.once('exit', () => {
        failed('it ended');
      });
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.on('error', () => undefined);
      this.#worker.on('exit', () => {
        this.#fail();
        resolve();
      });
    });
  }

  /** Starts a thread; resolves when it has joined the image. */
  static async start(orders: PoolOrders, filename: string): Promise<PoolThread> {
    const thread = new PoolThread(orders, filename);
    const failure = await thread.#started;
    if (failure !== undefined) {
      // Nobody may find what it still holds.
      await thread.#worker.terminate();
      await thread.#ended;
      throw failure;
    }
    // Requests under way keep the program alive, not the thread itself.
    thread.#worker.unref();
    return thread;
  }

  run(
    operation: PoolOperation,
    queue: number,
    offset: number,
    length: number,
    buffer?: Uint8Array,
    unmap = false,
  ): Promise<void> {
    if (this.#dead) return Promise.reject(this.#deadError());
    const id = ++this.#lastId;
    this.#batch.push({ id, operation, queue, offset, length, unmap, buffer });
    if (this.#batch.length === 1)
      process.nextTick(() => {
        this.#send();
      });
    if (this.#waiting.size === 0) this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
  }

  /** Leaves the image, and ends the thread. */
  async close(): Promise<void> {
    try {
      await this.run('close', 0, 0, 0);
    } finally {
      await this.#worker.terminate();
      await this.#ended;
    }
  }

  #send(): void {
    const batch = this.#batch;
    this.#batch = [];
    this.#worker.postMessage(batch);
  }

  #settle(answers: readonly PoolAnswer[]): void {
    for (const { id, error } of answers) {
      const request = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) request?.resolve();
      else request?.reject(reviveError(error));
    }
    if (this.#waiting.size === 0) this.#worker.unref();
  }

  #fail(): void {
    this.#dead = true;
    const error = this.#deadError();
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #deadError(): CowherdError {
    const filename = this.#filename;
    return new CowherdError(
      'ERR_COWHERD_POISONED',
      `'${filename}' can no longer be used: a thread of its pool has ended`,
      { filename },
    );
  }
}

/** See the file's comment. */
class ThreadPool implements ImagePool {
  readonly filename: string;
  readonly size: number;
  readonly #image: Image;
  readonly #threads: readonly PoolThread[];
  /** Every queue, as its thread and its number there. */
  readonly #queues: readonly { readonly thread: PoolThread; readonly queue: number }[];
  readonly #regionBytes: number | undefined;
  readonly #noteClosed: () => void;
  readonly #spare = new Map<number, Uint8Array[]>();
  #spareBytes = 0;
  #turn = 0;
  #closing: Promise<void> | undefined;

  constructor(image: Image, threads: readonly PoolThread[], regionBytes: number | undefined) {
    this.filename = image.filename;
    this.size = image.size;
    this.#image = image;
    this.#threads = threads;
    this.#regionBytes = regionBytes;
    // The image of this thread tells of what is lost.
    this.#noteClosed = noteOpen(this, false);
    // In an order that goes round the threads.
    const most = Math.max(...threads.map((thread) => thread.queues));
    this.#queues = Array.from({ length: most }, (_, queue) =>
      threads.filter((thread) => queue < thread.queues).map((thread) => ({ thread, queue })),
    ).flat();
  }

  async read(buffer: BufferLike, offset: number): Promise<void> {
    const bytes = bytesOf(buffer, this.filename);
    if (isShared(bytes)) {
      await this.#run('read', offset, bytes.length, bytes);
      return;
    }
    const shared = this.#lend(bytes.length);
    try {
      await this.#run('read', offset, bytes.length, shared);
      // Refuses memory that was given away meanwhile.
      bytesOf(bytes, this.filename).set(shared);
    } finally {
      this.#giveBack(shared);
    }
  }

  async write(buffer: BufferLike, offset: number): Promise<void> {
    const bytes = bytesOf(buffer, this.filename);
    if (isShared(bytes)) {
      await this.#run('write', offset, bytes.length, bytes);
      return;
    }
    const shared = this.#lend(bytes.length);
    shared.set(bytes);
    try {
      await this.#run('write', offset, bytes.length, shared);
    } finally {
      this.#giveBack(shared);
    }
  }

  async readv(buffers: readonly BufferLike[], offset: number): Promise<void> {
    const parts = bytesOfEach(buffers, this.filename);
    const shared = this.#lend(totalLength(parts));
    try {
      await this.#run('read', offset, shared.length, shared);
      // Refuses memory that was given away meanwhile.
      scatter(shared, bytesOfEach(parts, this.filename));
    } finally {
      this.#giveBack(shared);
    }
  }

  async writev(buffers: readonly BufferLike[], offset: number): Promise<void> {
    const parts = bytesOfEach(buffers, this.filename);
    const shared = this.#lend(totalLength(parts));
    gather(parts, shared);
    try {
      await this.#run('write', offset, shared.length, shared);
    } finally {
      this.#giveBack(shared);
    }
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly unmap?: boolean } = {},
  ): Promise<void> {
    return this.#run('writeZeroes', offset, length, undefined, options.unmap ?? false);
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#run('discard', offset, length);
  }

  flush(): Promise<void> {
    return this.#run('flush', 0, 0);
  }

  createReadStream(options: ReadStreamOptions = {}): Readable {
    if (this.#closing !== undefined) throw this.#closed();
    const { filename, size } = this;
    const image = this.#image;
    const read = (buffer: Uint8Array, offset: number): Promise<void> => this.read(buffer, offset);
    const map = image.readOnly
      ? (offset: number, length: number) => image.map({ offset, length })
      : undefined;
    return createReadStream({ filename, size, read, map }, options);
  }

  createWriteStream(options: WriteStreamOptions = {}): Writable {
    if (this.#closing !== undefined) throw this.#closed();
    const { filename, size } = this;
    if (this.#image.readOnly) {
      const message = `'${filename}' is open read-only`;
      throw new CowherdError('ERR_COWHERD_READ_ONLY', message, { filename });
    }
    const write = (bytes: Uint8Array, offset: number): Promise<void> => this.write(bytes, offset);
    return createWriteStream({ filename, size, write, flush: () => this.flush() }, options);
  }

  info(): Promise<ImageInfo> {
    return this.#image.info();
  }

  stats(): ImageStats {
    return this.#image.stats();
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeAll(): Promise<void> {
    this.#noteClosed();
    const ended = await Promise.allSettled(this.#threads.map((thread) => thread.close()));
    await this.#image.close();
    for (const end of ended) if (end.status === 'rejected') throw end.reason as Error;
  }

  #run(
    operation: PoolOperation,
    offset: number,
    length: number,
    buffer?: Uint8Array,
    unmap = false,
  ): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(this.#closed());
    const region = this.#regionBytes;
    const choice = region === undefined ? this.#turn++ : Math.floor(offset / region);
    const { thread, queue } = this.#queues[Math.max(0, choice || 0) % this.#queues.length];
    return thread.run(operation, queue, offset, length, buffer, unmap);
  }

  #closed(): CowherdError {
    const { filename } = this;
    return new CowherdError('ERR_COWHERD_CLOSED', `'${filename}' is closed`, { filename });
  }

  #lend(length: number): Uint8Array {
    const spare = this.#spare.get(length)?.pop();
    if (spare === undefined) {
      try {
        return new Uint8Array(new SharedArrayBuffer(length));
      } catch (error) {
        throw nameMemoryError(error, this.filename);
      }
    }
    this.#spareBytes -= length;
    return spare;
  }

  #giveBack(buffer: Uint8Array): void {
    if (this.#spareBytes + buffer.length > spareBytes) return;
    this.#spareBytes += buffer.length;
    const spare = this.#spare.get(buffer.length);
    if (spare === undefined) this.#spare.set(buffer.length, [buffer]);
    else spare.push(buffer);
  }
}

function isShared(buffer: Uint8Array): boolean {
  return types.isSharedArrayBuffer(buffer.buffer);
}
