/** A thread that serves clients, as the one sees it that accepts them. */
import { Worker } from 'node:worker_threads';
import { CowherdError, problemWith } from '../errors.js';
import { reviveError } from '../image/threads/error-transfer.js';
import { noWorkerModule, workerModule } from '../package-folder.js';
import type { FuseOrder } from './fuse/fuse-host.js';
import type { DeviceLink } from './vhost-user-blk/device-orders.js';
import { VhostUserError } from './vhost-user-blk/protocol.js';
import type { ServeNews, ServeOrder, ServeOrders } from './serve-messages.js';

/** What is told of a thread. */
export interface ThreadEvents {
  onGone(client: number): void;
  onProblem(why: string): void;
  /** It has ended without being told to: images that it had open cannot be used any more. */
  onDeath(error: Error): void;
}

/** See the file's comment. */
export class ServeThread {
  /** Clients that it serves. */
  clients = 0;
  readonly #worker: Worker;
  readonly #events: ThreadEvents;
  readonly #started: Promise<Error | undefined>;
  readonly #ended: Promise<void>;
  #failure: Error | undefined;
  #isClosing = false;
  /** Who waits for what it does for devices, by the number of the order. */
  readonly #asked = new Map<
    number,
    {
      readonly resolve: (value: number | undefined) => void;
      readonly reject: (error: Error) => void;
    }
  >();
  #lastOrder = 0;

  private constructor(orders: ServeOrders, filename: string, events: ThreadEvents) {
    this.#events = events;
    const module = workerModule('serve-worker.js', import.meta.url);
    if (module === undefined) throw notStarted(filename, noWorkerModule);
    this.#worker = new Worker(module, { workerData: orders, execArgv: [] });
    this.#started = new Promise((resolve) => {
      this.#worker.on('message', (news: ServeNews) => {
        if (news.kind === 'ready') resolve(undefined);
        this.#hear(news);
      });
      this.#worker.on('error', (cause: unknown) => {
        this.#failure ??= notStarted(filename, String(cause), cause);
      });
      this.#worker.once('exit', () => {
        resolve(this.#failure ?? notStarted(filename, 'it ended'));
      });
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        resolve();
        for (const { reject } of this.#asked.values()) reject(deadError(filename));
        if (!this.#isClosing) this.#events.onDeath(this.#failure ?? deadError(filename));
      });
    });
  }

  /** Starts a thread; resolves when it can serve. @throws what keeps it from that */
  static async start(
    orders: ServeOrders,
    filename: string,
    events: ThreadEvents,
  ): Promise<ServeThread> {
    const thread = new ServeThread(orders, filename, events);
    const failure = await thread.#started;
    if (failure === undefined) return thread;
    thread.#isClosing = true;
    await thread.#worker.terminate();
    throw failure;
  }

  /** Hands a connected socket over. */
  serve(client: number, descriptor: number): void {
    this.clients += 1;
    this.#order({ kind: 'serve', client, descriptor });
  }

  /** Has it do something for a device. */
  readonly link: DeviceLink = (order) =>
    this.#ask((id) => {
      this.#order({ kind: 'device', id, order });
    });

  /** Has it take part in serving a mounted file; resolves when that has ended. */
  async mount(order: FuseOrder): Promise<void> {
    await this.#ask((id) => {
      this.#order({ kind: 'mount', id, order });
    });
  }

  /** Has it answer what is under way, leave the images, and end. @throws what kept it from that */
  async close(): Promise<void> {
    if (!this.#isClosing) {
      this.#isClosing = true;
      this.#order({ kind: 'close' });
    }
    await this.#ended;
    if (this.#failure !== undefined) throw this.#failure;
  }

  #ask(send: (id: number) => void): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      this.#lastOrder += 1;
      this.#asked.set(this.#lastOrder, { resolve, reject });
      send(this.#lastOrder);
    });
  }

  #order(order: ServeOrder): void {
    this.#worker.postMessage(order);
  }

  #hear(news: ServeNews): void {
    switch (news.kind) {
      case 'ready':
        break;
      case 'gone':
        this.clients -= 1;
        this.#events.onGone(news.client);
        break;
      case 'answer': {
        const asked = this.#asked.get(news.id);
        this.#asked.delete(news.id);
        if (news.refusal === undefined) asked?.resolve(news.value);
        else asked?.reject(new VhostUserError(news.refusal));
        break;
      }
      case 'problem':
        this.#events.onProblem(news.why);
        break;
      case 'failed':
        this.#failure = reviveError(news.error);
        void this.#worker.terminate();
        break;
      case 'closed':
        void this.#worker.terminate();
        break;
    }
  }
}

function notStarted(filename: string, why: string, cause?: unknown): CowherdError {
  const what = `a thread that serves it could not go on: ${why}`;
  return problemWith('ERR_COWHERD_IO', filename, what, { cause });
}

function deadError(filename: string): CowherdError {
  return new CowherdError(
    'ERR_COWHERD_POISONED',
    `'${filename}' can no longer be served: a thread that served it has ended`,
    { filename },
  );
}
