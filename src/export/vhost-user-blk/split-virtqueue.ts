/** The split virtqueue (virtio 1.2, section 2.7): a table of descriptors, and two rings that refer to it. */
import type { GuestMemory } from './guest-memory.js';
import {
  BrokenRing,
  type Chain,
  type DescriptorTable,
  DescriptorFlag,
  type RingSettings,
  type Virtqueue,
  addToChain,
  addressAt,
  descriptorBytes,
  indirectTable,
  ringPart,
} from './virtqueue.js';

/** In the driver's flags: it does not want to be told of what was answered. */
const noInterrupt = 1;
/** In the device's flags: it does not want to be told of requests. */
const noNotify = 1;

/** Places of 16 bits in a ring before its entries. */
const flagsAt = 0;
const indexAt = 1;
const entriesAt = 2;

/** Bytes of an entry of the used ring: a head, and how much was written. */
const usedEntryBytes = 8;

/** See the file's comment. */
export class SplitVirtqueue implements Virtqueue {
  readonly #memory: GuestMemory;
  readonly #size: number;
  readonly #hasEventIndex: boolean;
  readonly #hasIndirect: boolean;
  readonly #table: DescriptorTable;
  /** Flags, index, entries, and the index of the answer to be told of. */
  readonly #available: Uint16Array;
  /** Flags and index. */
  readonly #used: Uint16Array;
  /** Pairs of a head and a length. */
  readonly #usedEntries: Uint32Array;
  /** The index of the request to be told of. */
  readonly #availableEvent: Uint16Array;
  /** The next request that is taken, and the next answer. */
  #nextAvailable: number;
  #nextUsed: number;
  /** What the driver sees of the answers. */
  #published: number;
  /** The driver's index when it was looked at last. */
  #seenAvailable: number;

  /** @throws BrokenRing where a part of it does not lie in guest memory as it should */
  constructor(memory: GuestMemory, settings: RingSettings) {
    const { size, addresses, base, hasEventIndex, hasIndirect } = settings;
    this.#memory = memory;
    this.#size = size;
    this.#hasEventIndex = hasEventIndex;
    this.#hasIndirect = hasIndirect;
    const { descriptors } = addresses;
    const table = ringPart(
      memory,
      'descriptors',
      descriptors,
      size * descriptorBytes,
      descriptorBytes,
    );
    const available = ringPart(memory, 'requests', addresses.available, 2 * (size + 3), 2);
    const used = ringPart(memory, 'answers', addresses.used, usedEntryBytes * size + 6, 4);
    this.#table = { ...table, size };
    this.#available = new Uint16Array(available.region.memory, available.offset, size + 3);
    this.#used = new Uint16Array(used.region.memory, used.offset, 2);
    this.#usedEntries = new Uint32Array(used.region.memory, used.offset + 4, 2 * size);
    const eventAt = used.offset + 4 + usedEntryBytes * size;
    this.#availableEvent = new Uint16Array(used.region.memory, eventAt, 1);
    this.#nextAvailable = base & 0xffff;
    this.#seenAvailable = this.#nextAvailable;
    this.#nextUsed = Atomics.load(this.#used, indexAt);
    this.#published = this.#nextUsed;
  }

  get base(): number {
    return this.#nextAvailable;
  }

  /** The index that the next answer will have. */
  get nextUsed(): number {
    return this.#nextUsed;
  }

  /** Goes on where so many requests were taken that were not answered. */
  resume(count: number): void {
    this.#nextAvailable = (this.#nextUsed + count) & 0xffff;
    this.#seenAvailable = this.#nextAvailable;
  }

  take(): Chain | undefined {
    if (this.#nextAvailable === this.#seenAvailable && !this.#look()) return undefined;
    const at = entriesAt + (this.#nextAvailable & (this.#size - 1));
    const head = this.#available[at];
    const chain = this.chainOf(head);
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    return chain;
  }

  /** The request that begins with a descriptor. @throws BrokenRing */
  chainOf(head: number): Chain {
    const chain: Chain = { head, readable: [], writable: [] };
    this.#follow(this.#table, head, chain, this.#hasIndirect);
    return chain;
  }

  complete(head: number, written: number): void {
    const at = 2 * (this.#nextUsed & (this.#size - 1));
    this.#usedEntries[at] = head;
    this.#usedEntries[at + 1] = written;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
  }

  publish(): boolean {
    const before = this.#published;
    const now = this.#nextUsed;
    if (before === now) return false;
    this.#published = now;
    // Both in the order of all threads: the driver looks at the index after it has said what it wants.
    Atomics.store(this.#used, indexAt, now);
    if (!this.#hasEventIndex) return (Atomics.load(this.#available, flagsAt) & noInterrupt) === 0;
    const event = Atomics.load(this.#available, entriesAt + this.#size);
    return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
  }

  wantNotification(): boolean {
    if (this.#hasEventIndex) Atomics.store(this.#availableEvent, 0, this.#nextAvailable);
    else Atomics.store(this.#used, flagsAt, 0);
    return this.#look();
  }

  refuseNotifications(): void {
    // With indices it is enough not to move on.
    if (!this.#hasEventIndex) Atomics.store(this.#used, flagsAt, noNotify);
  }

  /** Looks whether there are more requests. @throws BrokenRing for more than fit into the ring */
  #look(): boolean {
    const index = Atomics.load(this.#available, indexAt);
    const count = (index - this.#nextAvailable) & 0xffff;
    if (count > this.#size)
      throw new BrokenRing('more requests are waiting than the queue can hold');
    this.#seenAvailable = index;
    return count > 0;
  }

  #follow(table: DescriptorTable, first: number, chain: Chain, mayRefer: boolean): void {
    const { region, offset, size } = table;
    const { view } = region;
    let index = first;
    for (let steps = 0; steps < size; steps++) {
      if (index >= size) throw new BrokenRing('there is no descriptor of that number');
      const at = offset + index * descriptorBytes;
      const address = addressAt(region, at);
      const length = view.getUint32(at + 8, true);
      const flags = view.getUint16(at + 12, true);
      if ((flags & DescriptorFlag.indirect) !== 0) {
        if (!mayRefer || (flags & DescriptorFlag.next) !== 0) {
          throw new BrokenRing('a descriptor refers to others that may not');
        }
        this.#follow(indirectTable(this.#memory, address, length), 0, chain, false);
        return;
      }
      addToChain(this.#memory, chain, address, length, flags);
      if ((flags & DescriptorFlag.next) === 0) return;
      index = view.getUint16(at + 14, true);
    }
    throw new BrokenRing('the descriptors of a request go round in a circle');
  }
}
