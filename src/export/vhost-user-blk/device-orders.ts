/** What the thread that talks to a front-end has the threads do that serve its queues. */
import type { RegionFacts } from './guest-memory.js';
import type { RingSettings } from './virtqueue.js';

/** The part of the memory that knows what is under way which belongs to a queue. */
export interface InflightPart {
  readonly descriptor: number;
  /** Bytes into its file. */
  readonly offset: number;
}

/** Descriptors of eventfds; undefined where the front-end gave none. They stay the sender's. */
export interface RingEvents {
  /** The driver tells of requests; without it the ring is looked at all the time. */
  readonly kick: number | undefined;
  /** The driver is told of answers. */
  readonly call: number | undefined;
  /** The front-end is told that the ring is broken. */
  readonly error: number | undefined;
}

/** Tells one device from the others of this process. */
export type DeviceNumber = number;

/** See the file's comment. */
export type DeviceOrder = { readonly device: DeviceNumber } & (
  | { readonly kind: 'open'; readonly exportIndex: number }
  | { readonly kind: 'memory'; readonly regions: readonly RegionFacts[] }
  | { readonly kind: 'write-through'; readonly isOn: boolean }
  | {
      readonly kind: 'start';
      readonly queue: number;
      readonly settings: RingSettings;
      readonly events: RingEvents;
      readonly inflight: InflightPart | undefined;
    }
  | { readonly kind: 'events'; readonly queue: number; readonly events: RingEvents }
  | { readonly kind: 'stop'; readonly queue: number }
  | { readonly kind: 'close' }
);

/** Carries orders out, one after the other; the answer to `stop` is where the ring goes on. */
export type DeviceLink = (order: DeviceOrder) => Promise<number | undefined>;
