/** The devices whose queues, or some of them, one thread serves. */
import path from 'node:path';
import type { Image, ImageQueue } from '../../image/api/image.js';
import type { DeviceNumber, DeviceOrder } from './device-orders.js';
import { GuestMemory } from './guest-memory.js';
import { VhostUserError } from './protocol.js';
import { VirtqueueServer } from './virtqueue-server.js';
import { BrokenRing } from './virtqueue.js';

/** An open image as a block device. */
export interface BlockExport {
  readonly image: Image;
  readonly name: string;
  readonly readOnly: boolean;
}

interface ServedQueue {
  readonly server: VirtqueueServer;
  readonly queue: ImageQueue;
}

/** A device, as far as this thread serves it. */
interface Device {
  readonly exported: BlockExport;
  readonly memory: GuestMemory;
  readonly queues: Map<number, ServedQueue>;
  isWriteThrough: boolean;
}

/** See the file's comment. */
export class VhostUserHost {
  readonly #exports: readonly BlockExport[];
  readonly #pollMicroseconds: number;
  readonly #onProblem: (why: string) => void;
  readonly #devices = new Map<DeviceNumber, Device>();

  /** @param onProblem told, in a few words, why a queue is not served any more */
  constructor(
    exports: readonly BlockExport[],
    pollMicroseconds: number,
    onProblem: (why: string) => void,
  ) {
    this.#exports = exports;
    this.#pollMicroseconds = pollMicroseconds;
    this.#onProblem = onProblem;
  }

  /**
   * Does what a front-end wants.
   *
   * @throws VhostUserError, or what keeps the image from having another queue
   */
  async carryOut(order: DeviceOrder): Promise<number | undefined> {
    if (order.kind === 'open') {
      this.#devices.set(order.device, {
        exported: this.#exports[order.exportIndex],
        memory: new GuestMemory(),
        queues: new Map(),
        isWriteThrough: true,
      });
      return undefined;
    }
    const device = this.#devices.get(order.device);
    if (device === undefined) return undefined;
    switch (order.kind) {
      case 'memory':
        device.memory.set(order.regions);
        return undefined;
      case 'write-through':
        device.isWriteThrough = order.isOn;
        return undefined;
      case 'start':
        await this.#start(device, order);
        return undefined;
      case 'events':
        device.queues.get(order.queue)?.server.setEvents(order.events);
        return undefined;
      case 'stop':
        return await this.#stop(device, order.queue);
      case 'close':
        this.#devices.delete(order.device);
        await this.#stopAll(device);
        return undefined;
    }
  }

  /** Answers what is under way in all queues, and leaves them. */
  async close(): Promise<void> {
    await Promise.all([...this.#devices.values()].map((device) => this.#stopAll(device)));
  }

  async #start(device: Device, order: DeviceOrder & { readonly kind: 'start' }): Promise<void> {
    const { exported, memory } = device;
    const { image, readOnly } = exported;
    const id = exported.name === '' ? path.basename(image.filename) : exported.name;
    const queue = await image.openQueue();
    try {
      const server = new VirtqueueServer({
        ...{ memory, settings: order.settings, events: order.events, inflight: order.inflight },
        target: {
          ...{ image, queue, readOnly, id, isOutlived: order.inflight !== undefined },
          isWriteThrough: () => device.isWriteThrough,
        },
        pollMicroseconds: this.#pollMicroseconds,
        onBroken: (why) => {
          this.#onProblem(`queue ${order.queue} is not served any more: ${why}`);
        },
      });
      device.queues.set(order.queue, { server, queue });
      await server.start();
    } catch (error) {
      device.queues.delete(order.queue);
      await queue.close();
      throw error instanceof BrokenRing ? new VhostUserError(error.message) : error;
    }
  }

  async #stop(device: Device, index: number): Promise<number | undefined> {
    const served = device.queues.get(index);
    if (served === undefined) return undefined;
    device.queues.delete(index);
    const base = await served.server.stop();
    await served.queue.close();
    return base;
  }

  async #stopAll(device: Device): Promise<void> {
    await Promise.all([...device.queues.keys()].map((index) => this.#stop(device, index)));
  }
}
