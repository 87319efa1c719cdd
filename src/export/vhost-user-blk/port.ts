/** A socket at which one front-end after the other works with a block device. */
import { closeDescriptor } from '../../native/descriptor.js';
import { type Address, addressText } from '../sockets/address.js';
import { Listener } from '../sockets/listener.js';
import type { BlockDeviceFacts } from './block-config.js';
import { VhostUserDevice } from './device.js';
import type { DeviceLink } from './device-orders.js';
import { FrontEnd } from './front-end.js';

/** What a socket is opened for. */
export interface PortOptions {
  readonly address: Address;
  /** Of the image, in every thread's list. */
  readonly exportIndex: number;
  readonly facts: BlockDeviceFacts;
  /** To the threads that share the queues. */
  readonly links: readonly DeviceLink[];
  /** Told, in a few words, why a connection was closed that its front-end had not ended. */
  readonly onProblem: (why: string) => void;
  /** Told that a front-end has gone. */
  readonly onGone: () => void;
}

/** Front-ends that wait at a time. */
const mostWaiting = 8;

let lastDevice = 0;

/** See the file's comment. */
export class VhostUserPort {
  /** As front-ends can connect to it. */
  readonly address: string;
  readonly #options: PortOptions;
  #listener: Listener | undefined;
  #current: FrontEnd | undefined;
  /** Sockets of front-ends that wait for the one before them to go. */
  readonly #waiting: number[] = [];
  #isClosing = false;

  private constructor(options: PortOptions) {
    this.#options = options;
    this.address = addressText(options.address);
  }

  /** Listens. @throws CowherdError naming the address */
  static async open(options: PortOptions): Promise<VhostUserPort> {
    const port = new VhostUserPort(options);
    port.#listener = await Listener.open(options.address, (descriptor) => {
      port.#waiting.push(descriptor);
      // Those that have waited longest are most likely to have gone.
      if (port.#waiting.length > mostWaiting) closeDescriptor(port.#waiting.shift()!);
      port.#admit();
    });
    return port;
  }

  /** Whether a front-end is connected. */
  get isConnected(): boolean {
    return this.#current !== undefined;
  }

  /** Tells the front-end that the image has another size. */
  sizeChanged(): void {
    this.#current?.sizeChanged();
  }

  /** Takes no more front-ends, and answers what is under way. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#listener?.close();
    for (const descriptor of this.#waiting.splice(0)) closeDescriptor(descriptor);
    this.#current?.end(undefined);
    await this.#current?.closed;
  }

  #admit(): void {
    const socket = this.#isClosing || this.isConnected ? undefined : this.#waiting.shift();
    if (socket === undefined) return;
    const { exportIndex, facts, links, onProblem, onGone } = this.#options;
    lastDevice += 1;
    const device = new VhostUserDevice(lastDevice, exportIndex, facts, links);
    const current = new FrontEnd(socket, device, onProblem);
    this.#current = current;
    void current.closed.then(() => {
      this.#current = undefined;
      onGone();
      this.#admit();
    });
  }
}
