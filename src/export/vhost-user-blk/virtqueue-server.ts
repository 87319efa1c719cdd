/** Serving one virtqueue on this thread: requests are taken as they come, and answered as they end. */
import {
  type DescriptorWatch,
  closeDescriptor,
  duplicateDescriptor,
  signalEvent,
  watchEvent,
} from '../../native/descriptor.js';
import { mapMemory } from '../../native/mapped-memory.js';
import { type BlockTarget, perform } from './block-requests.js';
import type { InflightPart, RingEvents } from './device-orders.js';
import type { GuestMemory } from './guest-memory.js';
import { Inflight, inflightBytes } from './inflight.js';
import { VhostUserError } from './protocol.js';
import { PackedVirtqueue } from './packed-virtqueue.js';
import { SplitVirtqueue } from './split-virtqueue.js';
import { BrokenRing, type Chain, type RingSettings, type Virtqueue } from './virtqueue.js';

/** Milliseconds between two looks at a ring whose driver cannot tell of its requests. */
const lookMs = 1;

/** What a queue is served with. */
export interface VirtqueueOptions {
  readonly memory: GuestMemory;
  readonly settings: RingSettings;
  readonly events: RingEvents;
  readonly inflight: InflightPart | undefined;
  readonly target: BlockTarget;
  /** Microseconds in which a ring is looked at again and again after the last request. */
  readonly pollMicroseconds: number;
  /** Told why the ring cannot be worked on any more. */
  readonly onBroken: (why: string) => void;
}

/** See the file's comment. */
export class VirtqueueServer {
  readonly #options: VirtqueueOptions;
  readonly #ring: Virtqueue;
  /** Of a split queue whose requests under way are noted. */
  readonly #noted: { readonly ring: SplitVirtqueue; readonly inflight: Inflight } | undefined;
  readonly #pollMs: number;
  #watch: DescriptorWatch | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Copies of ours of what the front-end gave. */
  #call: number | undefined;
  #error: number | undefined;
  /** Requests under way. */
  #running = 0;
  #isTaking = false;
  #isBroken = false;
  /** Whether a turn is about to come, so that the driver need not tell of requests. */
  #isAwake = false;
  #isPublishing = false;
  /** When there was something last, in milliseconds. */
  #lastBusy = 0;
  #onIdle: (() => void) | undefined;

  /** @throws BrokenRing, VhostUserError */
  constructor(options: VirtqueueOptions) {
    const { memory, settings, inflight, events, pollMicroseconds } = options;
    this.#options = options;
    this.#pollMs = pollMicroseconds / 1000;
    if (settings.isPacked) {
      this.#ring = new PackedVirtqueue(memory, settings);
    } else {
      const ring = new SplitVirtqueue(memory, settings);
      this.#ring = ring;
      if (inflight !== undefined) {
        const { size } = settings;
        this.#noted = { ring, inflight: new Inflight(mapInflight(inflight, size), size) };
      }
    }
    this.setEvents(events);
  }

  /** Does again what was under way when another process served the queue, then begins. */
  async start(): Promise<void> {
    if (this.#noted !== undefined) {
      const { ring, inflight } = this.#noted;
      const heads = inflight.recover(ring.nextUsed);
      // New requests may be about the same sectors.
      ring.resume(heads.length);
      try {
        for (const head of heads) this.#begin(ring.chainOf(head));
      } catch (error) {
        this.#break(error);
      }
      await this.#idle();
    }
    if (this.#isBroken) return;
    this.#isTaking = true;
    this.#ring.refuseNotifications();
    this.#wake();
  }

  /** Exchanges the eventfds of the ring. */
  setEvents({ kick, call, error }: RingEvents): void {
    this.#closeEvents();
    this.#call = call === undefined ? undefined : copyOf(call);
    this.#error = error === undefined ? undefined : copyOf(error);
    if (kick === undefined) {
      this.#timer = setInterval(this.#wake, lookMs);
      return;
    }
    const watch = watchEvent(kick, this.#wake);
    if (typeof watch === 'number') {
      this.#closeEvents();
      throw new VhostUserError('what a queue is kicked by is no eventfd');
    }
    this.#watch = watch;
    // The driver may have kicked what it was before.
    if (this.#isTaking) this.#wake();
  }

  /** Takes no more requests, and answers those under way. @returns where the ring goes on */
  async stop(): Promise<number> {
    this.#isTaking = false;
    await this.#idle();
    this.#closeEvents();
    return this.#ring.base;
  }

  readonly #wake = (): void => {
    if (this.#isAwake || !this.#isTaking) return;
    this.#isAwake = true;
    this.#lastBusy = performance.now();
    this.#turn();
  };

  /** Looks for requests, and comes back as long as there were some lately. */
  readonly #turn = (): void => {
    if (!this.#isTaking) {
      this.#isAwake = false;
      return;
    }
    this.#look();
    const isBusy = performance.now() - this.#lastBusy <= this.#pollMs;
    if (isBusy || this.#isNotified()) {
      setImmediate(this.#turn);
      return;
    }
    this.#isAwake = false;
  };

  /** Asks to be told of the next request. @returns whether there is one already */
  #isNotified(): boolean {
    try {
      if (!this.#ring.wantNotification()) return false;
      this.#ring.refuseNotifications();
      return true;
    } catch (error) {
      this.#break(error);
      return false;
    }
  }

  /** Takes what is there. */
  #look(): void {
    if (!this.#isTaking) return;
    let isFound = false;
    try {
      for (let chain = this.#ring.take(); chain !== undefined; chain = this.#ring.take()) {
        if (this.#running === this.#options.settings.size) {
          throw new BrokenRing('more requests are under way than the queue can hold');
        }
        this.#noted?.inflight.take(chain.head);
        this.#begin(chain);
        isFound = true;
      }
    } catch (error) {
      this.#break(error);
    }
    if (isFound) this.#lastBusy = performance.now();
  }

  #begin(chain: Chain): void {
    const { head } = chain;
    const ended = perform(chain, this.#options.target);
    this.#running += 1;
    void ended.then((written) => {
      this.#running -= 1;
      this.#noted?.inflight.answer(head);
      this.#ring.complete(head, written);
      if (this.#isPublishing) return;
      // What ends together is told of together.
      this.#isPublishing = true;
      queueMicrotask(this.#publish);
    });
  }

  readonly #publish = (): void => {
    this.#isPublishing = false;
    const isWanted = this.#ring.publish();
    this.#noted?.inflight.published(this.#noted.ring.nextUsed);
    if (!this.#options.memory.isWhole) {
      this.#break(new BrokenRing('guest memory was taken away'));
    }
    if (isWanted && this.#call !== undefined) signalEvent(this.#call);
    if (this.#running === 0) {
      this.#onIdle?.();
      this.#onIdle = undefined;
    }
    this.#look();
  };

  #break(error: unknown): void {
    if (!(error instanceof BrokenRing)) throw error;
    if (this.#isBroken) return;
    this.#isBroken = true;
    this.#isTaking = false;
    if (this.#error !== undefined) signalEvent(this.#error);
    this.#options.onBroken(error.message);
  }

  /** Resolves when nothing is under way. */
  async #idle(): Promise<void> {
    if (this.#running === 0 && !this.#isPublishing) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #closeEvents(): void {
    this.#watch?.close();
    this.#watch = undefined;
    clearInterval(this.#timer);
    if (this.#call !== undefined) closeDescriptor(this.#call);
    if (this.#error !== undefined) closeDescriptor(this.#error);
    this.#call = undefined;
    this.#error = undefined;
  }
}

function copyOf(descriptor: number): number {
  const copy = duplicateDescriptor(descriptor);
  if (copy < 0) throw new VhostUserError('there are too many open descriptors');
  return copy;
}

function mapInflight({ descriptor, offset }: InflightPart, size: number): Uint8Array {
  const memory = mapMemory(descriptor, offset, inflightBytes(size));
  if (typeof memory !== 'number') return memory;
  throw new VhostUserError('the memory that knows what is under way cannot be mapped');
}
