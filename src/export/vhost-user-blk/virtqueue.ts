/** What every form of a virtqueue does for the device that works on it. */
import type { GuestMemory, Place, Region } from './guest-memory.js';

/** A request, as a chain of descriptors tells it. */
export interface Chain {
  /** What the ring knows it by until it is complete. */
  readonly head: number;
  /** What the driver says, in its order. */
  readonly readable: Uint8Array[];
  /** What the device is to answer into, in its order. */
  readonly writable: Uint8Array[];
}

/** Where the parts of a ring lie, as addresses of the front-end's own. */
export interface RingAddresses {
  readonly descriptors: number;
  /** Of the available ring; of a packed one, of what the driver says of events. */
  readonly available: number;
  /** Of the used ring; of a packed one, of what the device says of events. */
  readonly used: number;
}

/** What a ring is opened with. */
export interface RingSettings {
  /** Descriptors. */
  readonly size: number;
  readonly addresses: RingAddresses;
  /** Whether it is one ring (VIRTIO_F_RING_PACKED), or a table with two. */
  readonly isPacked: boolean;
  /** Where it goes on, as SET_VRING_BASE tells it. */
  readonly base: number;
  /** Whether both sides say which event they want to hear of next (VIRTIO_F_EVENT_IDX). */
  readonly hasEventIndex: boolean;
  /** Whether a descriptor may refer to a table of others (VIRTIO_F_INDIRECT_DESC). */
  readonly hasIndirect: boolean;
}

/** A ring whose driver broke its rules: it cannot be worked on any more. */
export class BrokenRing extends Error {}

/** A ring of requests in guest memory. Nothing that it says is trusted. */
export interface Virtqueue {
  /**
   * The next request, if there is one.
   *
   * @throws BrokenRing
   */
  take(): Chain | undefined;
  /** Answers a request; the driver sees it after `publish`. @param written bytes, the status included */
  complete(head: number, written: number): void;
  /** Lets the driver see what was answered. @returns whether it wants to be told */
  publish(): boolean;
  /** Asks to be told of the next request. @returns whether there is one already */
  wantNotification(): boolean;
  /** Asks not to be told of requests. */
  refuseNotifications(): void;
  /** As GET_VRING_BASE tells where to go on. */
  readonly base: number;
}

/** Where a part of a ring lies. @param what it is, in words @throws BrokenRing if that is no guest memory */
export function ringPart(
  memory: GuestMemory,
  what: string,
  address: number,
  bytes: number,
  alignment: number,
): Place {
  const place = memory.findUser(address, bytes);
  if (place !== undefined && place.offset % alignment === 0) return place;
  throw new BrokenRing(`the ${what} of a queue do not lie in guest memory`);
}

/** Flags of a descriptor. */
export const DescriptorFlag = { next: 1, write: 2, indirect: 4 } as const;

/** Bytes of a descriptor. */
export const descriptorBytes = 16;
const twoTo32 = 2 ** 32;

/** A table of descriptors: a ring's own, or one that a descriptor refers to. */
export interface DescriptorTable {
  readonly region: Region;
  /** Where it begins in the region's mapping. */
  readonly offset: number;
  readonly size: number;
}

/** The address in a descriptor. What lies beyond 2^53 is only about right, and guest memory is not there. */
export function addressAt({ view }: Region, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * twoTo32;
}

/** Adds what a descriptor describes to its chain. @throws BrokenRing */
export function addToChain(
  memory: GuestMemory,
  chain: Chain,
  address: number,
  length: number,
  flags: number,
): void {
  const isWritable = (flags & DescriptorFlag.write) !== 0;
  if (!isWritable && chain.writable.length > 0) {
    throw new BrokenRing('a descriptor that is read follows one that is written');
  }
  const into = isWritable ? chain.writable : chain.readable;
  if (!memory.collect(into, address, length)) {
    throw new BrokenRing('a descriptor lies outside of guest memory');
  }
}

/** The table that a descriptor refers to. @throws BrokenRing */
export function indirectTable(
  memory: GuestMemory,
  address: number,
  length: number,
): DescriptorTable {
  if (length === 0 || length % descriptorBytes !== 0) {
    throw new BrokenRing('a table of descriptors has a length that it cannot have');
  }
  const place = memory.find(address, length);
  if (place === undefined)
    throw new BrokenRing('a table of descriptors lies outside of guest memory');
  return { ...place, size: length / descriptorBytes };
}
