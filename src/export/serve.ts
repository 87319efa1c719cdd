/**
 * Serving open images to other programs: clients are accepted on this thread, and each is served wholly
 * by one of several, this one among them.
 */
import { availableParallelism } from 'node:os';
import { CowherdError } from '../errors.js';
import type { Image } from '../image/api/image.js';
import {
  type OptionRule,
  type OptionRules,
  anyText,
  callback,
  checkOptions,
  flag,
  wholeNumber,
} from '../image/options/option-check.js';
import { onResized } from '../image/graph/resized.js';
import { cloneFuse, closeDescriptor, descriptorProblem } from '../native/descriptor.js';
import {
  type Address,
  type DeviceAddress,
  parseAddress,
  parseDeviceAddress,
  parseFileAddress,
} from './sockets/address.js';
import { Listener } from './sockets/listener.js';
import { type ExportSettings, exportOf } from './nbd/connection.js';
import { NbdHost } from './nbd/host.js';
import { mostStringBytes } from '../nbd/protocol.js';
import { type ServerTls, checkTls } from './nbd/tls.js';
import { pinThread } from '../native/thread-affinity.js';
import { ServeThread } from './serve-thread.js';
import { FuseHost } from './fuse/fuse-host.js';
import { type Mount, mountFile } from './fuse/mount.js';
import { VhostUserHost } from './vhost-user-blk/host.js';
import { VhostUserPort } from './vhost-user-blk/port.js';
import type { DeviceLink } from './vhost-user-blk/device-orders.js';
import { VhostUserError } from './vhost-user-blk/protocol.js';

/** Threads at most. */
export const mostWorkers = 64;
/** Threads by default at most: further ones share what the processors give. */
const usefulWorkers = 8;

/** For how long virtqueues are looked at by default: longer than a driver takes that waits to be told. */
const usualPollMicroseconds = 100;

/** Queues of an image, of which each client has one, and each thread; the rest is the program's own. */
const mostQueues = 248;

/** An open image that is to be served. It stays the caller's to close, after the server. */
export interface ServedImage {
  readonly image: Image;
  /** What clients call it by; default the empty name. */
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  /** Refuses what would change it; default whether the image is open read-only. */
  readonly readOnly?: boolean | undefined;
  /**
   * Persistent bitmaps that clients can read, as `qemu:dirty-bitmap:NAME`.
   */
  readonly bitmaps?: readonly string[] | undefined;
}

/** Arguments of `serve`. */
export interface ServeOptions {
  /** Addresses at which NBD clients are served: `unix:PATH`, `tcp:HOST:PORT`, `fd:N` of a listening socket. */
  readonly nbd?: string | readonly string[] | undefined;
  /**
   * Sockets at which front-ends of vhost-user find a block device, one front-end at a time each:
   * `unix:PATH[,queues=N][,name=NAME][,packed=on]`, with up to 64 virtqueues (default 16) and the name of the
   * image where there are several. Requests under way in packed queues are lost where the server is killed;
   * those in split ones are done by the server that goes on after it. A comma in a path or a name is doubled.
   */
  readonly vhostUserBlk?: string | readonly string[] | undefined;
  /**
   * Paths at which an image is a file for every program: `FILE[,name=NAME]`, with the name of the image where
   * there are several. It is mounted on a file that is there, or one that is made for as long; that takes the
   * right to mount, or the program `fusermount3`. A comma in a path or a name is doubled.
   */
  readonly fuse?: string | readonly string[] | undefined;
  /** Whether other users see the mounted files too; default false. */
  readonly allowOther?: boolean | undefined;
  /**
   * Microseconds for which a thread looks for the next request of a virtqueue before it waits to be told of
   * one: less time to an answer, at the cost of the processor; default 100, at most 1,000,000.
   */
  readonly pollMicroseconds?: number | undefined;
  /** Threads that serve, from 1 to 64; default one for each processor, 8 at most. */
  readonly workers?: number | undefined;
  /**
   * Processors, by their numbers, that the threads run on, one each, the first of them the one that `serve` is
   * called on; where there are fewer processors than threads they share them. Default wherever there is time.
   */
  readonly processors?: readonly number[] | undefined;
  /** Clients at a time; further ones wait. Default as many as there can be: 247 without the threads. */
  readonly connections?: number | undefined;
  /** Secures connections, and takes none that is not; default without. */
  readonly tls?: ServerTls | undefined;
  /** Told why a connection was closed that its client had not ended. */
  readonly onProblem?: ((why: string) => void) | undefined;
}

/** A server that is running. */
export interface Server extends AsyncDisposable {
  /** As NBD clients can connect to it: with the port that was free, where 0 was asked for. */
  readonly addresses: readonly string[];
  /** Paths of the files that are mounted. */
  readonly files: readonly string[];
  /** Where front-ends of vhost-user find the devices. */
  readonly devices: readonly string[];
  /** Clients and front-ends that are connected. */
  readonly connections: number;
  /** Resolves when the last client has gone, after the first has come. */
  readonly left: Promise<void>;
  /** Rejects if it cannot go on. */
  readonly failed: Promise<never>;
  /** Takes no more clients, answers what is under way, makes everything durable, and ends the threads. */
  close(): Promise<void>;
}

/**
 * Serves images until it is closed.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT; ERR_COWHERD_UNSUPPORTED where threads are needed and
 *   an image lies in the memory of one, or without the native addon; what keeps it from listening
 */
export async function serve(
  images: readonly ServedImage[],
  options: ServeOptions,
): Promise<Server> {
  checkImages(images);
  checkOptions(options, serveRules, '');
  const workers = options.workers ?? Math.min(usefulWorkers, availableParallelism());
  const most = mostQueues - workers;
  const connections = Math.min(options.connections ?? most, most);
  if (descriptorProblem !== undefined) {
    const message = `Serving needs the native addon, and ${descriptorProblem}`;
    throw new CowherdError('ERR_COWHERD_UNSUPPORTED', message);
  }
  const nbd = listOf(options.nbd).map(parseAddress);
  const devices = listOf(options.vhostUserBlk).map((text) => {
    const device = parseDeviceAddress(text);
    return { device, exportIndex: indexOf(device, images, text) };
  });
  const files = listOf(options.fuse).map((text) => {
    const file = parseFileAddress(text);
    return { path: file.path, exportIndex: indexOf(file, images, text) };
  });
  if (nbd.length + devices.length + files.length === 0) throw invalid('No address to serve at');
  await checkBitmaps(images);
  if (options.tls !== undefined) checkTls(options.tls);
  const server = new ImageServer(images, connections, options);
  try {
    await server.start(workers - 1, options.processors);
    for (const address of nbd) await server.listenForNbd(address);
    for (const { device, exportIndex } of devices) await server.openDevice(device, exportIndex);
    for (const { path, exportIndex } of files) {
      await server.mount(path, exportIndex, options.allowOther === true);
    }
    return server;
  } catch (error) {
    await server.close().catch(() => undefined);
    throw error;
  }
}

function listOf(given: string | readonly string[] | undefined): readonly string[] {
  return given === undefined ? [] : [given].flat();
}

/** Which image a device or a file is. */
function indexOf(
  { name }: { readonly name: string | undefined },
  images: readonly ServedImage[],
  text: string,
): number {
  if (name === undefined && images.length > 1) {
    throw invalid(`Which image '${text}' is has to be said by name=NAME: there are several`);
  }
  if (name === undefined) return 0;
  const index = images.findIndex((each) => (each.name ?? '') === name);
  if (index < 0) throw invalid(`No image is served by the name '${name}', as '${text}' wants`);
  return index;
}

function invalid(message: string): CowherdError {
  return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
}

const addressList: OptionRule = (value) =>
  [value].flat().every((each) => typeof each === 'string')
    ? undefined
    : 'addresses are expected, as text';

const serveRules: OptionRules<ServeOptions> = {
  nbd: addressList,
  vhostUserBlk: addressList,
  fuse: addressList,
  processors: (value) =>
    Array.isArray(value) && value.length > 0 && value.every((each) => Number.isSafeInteger(each))
      ? undefined
      : 'a list of the numbers of processors is expected',
  allowOther: flag,
  pollMicroseconds: wholeNumber(0, 1_000_000),
  workers: wholeNumber(1, mostWorkers),
  connections: wholeNumber(1),
  tls: (value) => (typeof value === 'object' ? undefined : 'an object is expected'),
  onProblem: callback,
};

const imageRules: OptionRules<ServedImage> = {
  image: (value) =>
    typeof (value as Partial<Image> | null)?.openQueue === 'function'
      ? undefined
      : 'an open image is expected',
  name: anyText,
  description: anyText,
  readOnly: flag,
  bitmaps: (value) =>
    Array.isArray(value) && value.every((each) => typeof each === 'string')
      ? undefined
      : 'a list of names is expected',
};

function checkImages(images: readonly ServedImage[]): void {
  const isList: boolean = Array.isArray(images);
  if (!isList || images.length === 0) throw invalid('No image to serve');
  const names = new Set<string>();
  for (const each of images) checkOptions(each, imageRules, '', ['image']);
  for (const { name = '', description = '' } of images) {
    if (names.has(name)) throw invalid(`Two images cannot be served by the name '${name}'`);
    names.add(name);
    for (const text of [name, description]) {
      if (Buffer.byteLength(text) > mostStringBytes || !isPlain(text)) {
        const what = `${mostStringBytes} bytes of UTF-8 at most, without a zero byte`;
        throw invalid(`Invalid name or description '${text}': ${what} are expected`);
      }
    }
  }
}

function isPlain(text: string): boolean {
  return !text.includes('\0') && Buffer.from(text).toString() === text;
}

/** Refuses bitmaps that clients would not be told of. */
async function checkBitmaps(images: readonly ServedImage[]): Promise<void> {
  for (const { image, bitmaps = [] } of images) {
    for (const bitmap of bitmaps) {
      await image.bitmap(bitmap, { length: 1 })[Symbol.asyncIterator]().next();
    }
  }
}

/** See the file's comment. */
class ImageServer implements Server {
  readonly left: Promise<void>;
  readonly failed: Promise<never>;
  readonly #images: readonly ServedImage[];
  readonly #most: number;
  readonly #tls: ServerTls | undefined;
  readonly #onProblem: (why: string) => void;
  readonly #pollMicroseconds: number;
  readonly #nbd: NbdHost;
  readonly #vhostUser: VhostUserHost;
  readonly #fuse: FuseHost;
  readonly #threads: ServeThread[] = [];
  readonly #listeners: Listener[] = [];
  readonly #ports: VhostUserPort[] = [];
  /** What is undone in the end. */
  readonly #atEnd: (() => void)[] = [];
  readonly #mounts = new Set<Mount>();
  /** Sockets of clients that wait for others to go. */
  readonly #waiting: number[] = [];
  #ownClients = 0;
  #lastClient = 0;
  #resolveLeft!: () => void;
  #rejectFailed!: (error: Error) => void;
  #closing: Promise<void> | undefined;

  constructor(
    images: readonly ServedImage[],
    most: number,
    { tls, pollMicroseconds = usualPollMicroseconds, onProblem = () => undefined }: ServeOptions,
  ) {
    this.#images = images;
    this.#most = most;
    this.#tls = tls;
    this.#onProblem = onProblem;
    this.left = new Promise((resolve) => {
      this.#resolveLeft = resolve;
    });
    this.failed = new Promise((_, reject) => {
      this.#rejectFailed = reject;
    });
    // Nobody has to listen to it.
    this.failed.catch(() => undefined);
    const exports = images.map((each) => exportOf(each.image, settingsOf(each)));
    this.#pollMicroseconds = pollMicroseconds;
    this.#nbd = new NbdHost(exports, tls, onProblem);
    this.#fuse = new FuseHost(exports);
    this.#vhostUser = new VhostUserHost(exports, pollMicroseconds, onProblem);
  }

  get addresses(): readonly string[] {
    return this.#listeners.map(({ address }) => address);
  }

  get files(): readonly string[] {
    return [...this.#mounts].map(({ path }) => path);
  }

  get devices(): readonly string[] {
    return this.#ports.map(({ address }) => address);
  }

  get connections(): number {
    const frontEnds = this.#ports.filter(({ isConnected }) => isConnected).length;
    return this.#nbdClients + frontEnds + this.#mounts.size;
  }

  get #nbdClients(): number {
    return this.#threads.reduce((sum, { clients }) => sum + clients, this.#ownClients);
  }

  /** Starts threads beside this one. */
  async start(count: number, processors: readonly number[] | undefined): Promise<void> {
    if (processors !== undefined) {
      // Each of them is tried; it stays on the first.
      for (const each of [...processors, processors[0]]) {
        const why = pinThread([each]);
        if (why !== undefined) throw invalid(`Cannot run on processor ${each}: ${why}`);
      }
    }
    if (count === 0) return;
    const [{ image: first }] = this.#images;
    const exports = this.#images.map((each) => ({
      ...settingsOf(each),
      handle: each.image.handle(),
    }));
    const shared = { exports, tls: this.#tls, pollMicroseconds: this.#pollMicroseconds };
    const events = {
      onGone: () => {
        this.#gone();
      },
      onProblem: this.#onProblem,
      onDeath: (error: Error) => {
        this.#rejectFailed(error);
      },
    };
    const started = await Promise.allSettled(
      Array.from({ length: count }, (_, index) => {
        const processor = processors?.[(index + 1) % processors.length];
        return ServeThread.start({ ...shared, processor }, first.filename, events);
      }),
    );
    for (const each of started) if (each.status === 'fulfilled') this.#threads.push(each.value);
    for (const each of started) if (each.status === 'rejected') throw each.reason as Error;
  }

  async listenForNbd(address: Address): Promise<void> {
    this.#listeners.push(
      await Listener.open(address, (descriptor) => {
        this.#waiting.push(descriptor);
        this.#admit();
      }),
    );
  }

  async openDevice(
    { address, queues, isPacked }: DeviceAddress,
    exportIndex: number,
  ): Promise<void> {
    const { image, readOnly } = this.#images[exportIndex];
    const own: DeviceLink = async (order) => {
      try {
        return await this.#vhostUser.carryOut(order);
      } catch (error) {
        throw new VhostUserError(error instanceof Error ? error.message : String(error));
      }
    };
    const port = await VhostUserPort.open({
      ...{ address, exportIndex, links: [own, ...this.#threads.map(({ link }) => link)] },
      facts: { image, readOnly: image.readOnly || readOnly === true, queues, isPacked },
      onProblem: this.#onProblem,
      onGone: () => {
        this.#gone();
      },
    });
    this.#ports.push(port);
    const forget = onResized(image, () => {
      port.sizeChanged();
    });
    this.#atEnd.push(forget);
  }

  async mount(path: string, exportIndex: number, allowOther: boolean): Promise<void> {
    const { image, readOnly } = this.#images[exportIndex];
    const mount = await mountFile(path, {
      readOnly: image.readOnly || readOnly === true,
      allowOther,
    });
    this.#mounts.add(mount);
    const { descriptor, userId, groupId } = mount;
    const order = { exportIndex, userId, groupId };
    const work = [this.#fuse.serve({ ...order, descriptor })];
    for (const thread of this.#threads) {
      const another = cloneFuse(descriptor);
      // Where the kernel gives no more of them there are fewer threads.
      if (another >= 0) work.push(thread.mount({ ...order, descriptor: another }));
    }
    void Promise.allSettled(work).then(async (ended) => {
      this.#mounts.delete(mount);
      await mount.forget();
      for (const each of ended) {
        if (each.status === 'rejected') this.#onProblem((each.reason as Error).message);
      }
      this.#gone();
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    for (const undo of this.#atEnd) undo();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    for (const descriptor of this.#waiting.splice(0)) closeDescriptor(descriptor);
    const left = await Promise.allSettled(this.#ports.map((port) => port.close()));
    await Promise.all([...this.#mounts].map((mount) => mount.end()));
    const ended = await Promise.allSettled([
      this.#nbd.close(),
      this.#fuse.close(),
      this.#vhostUser.close(),
      ...this.#threads.map((thread) => thread.close()),
    ]);
    for (const end of [...left, ...ended]) if (end.status === 'rejected') throw end.reason as Error;
  }

  /** Lets clients in, as long as there may be more: each is served where the fewest are. */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#nbdClients < this.#most) {
      const descriptor = this.#waiting.shift()!;
      const client = ++this.#lastClient;
      const thread = this.#threads.reduce<ServeThread | undefined>(
        (best, each) => (each.clients < (best?.clients ?? Infinity) ? each : best),
        undefined,
      );
      if (thread !== undefined && thread.clients <= this.#ownClients) {
        thread.serve(client, descriptor);
        continue;
      }
      this.#ownClients += 1;
      void this.#nbd.serve(descriptor).then(() => {
        this.#ownClients -= 1;
        this.#gone();
      });
    }
  }

  #gone(): void {
    this.#admit();
    if (this.connections === 0) this.#resolveLeft();
  }
}

function settingsOf({ image, name, description, readOnly, bitmaps }: ServedImage): ExportSettings {
  return {
    name: name ?? '',
    description,
    readOnly: image.readOnly || readOnly === true,
    bitmaps: bitmaps ?? [],
  };
}
