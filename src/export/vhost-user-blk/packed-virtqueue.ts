/** The packed virtqueue (virtio 1.2, section 2.8): one ring, in which requests become their answers. */
import type { GuestMemory } from './guest-memory.js';
import {
  BrokenRing,
  type Chain,
  DescriptorFlag,
  type DescriptorTable,
  type RingSettings,
  type Virtqueue,
  addToChain,
  addressAt,
  descriptorBytes,
  indirectTable,
  ringPart,
} from './virtqueue.js';

/** In the flags of a descriptor, compared with the counters of rounds. */
const availableBit = 1 << 7;
const usedBit = 1 << 15;

/** What one side says of which events it wants to hear of. */
const Events = { all: 0, none: 1, one: 2 } as const;
const eventBytes = 4;
const roundBit = 1 << 15;
const indexMask = roundBit - 1;

/** A place in the ring. Whether the round is odd changes each time it begins anew. */
interface Position {
  index: number;
  isOdd: boolean;
}

/** Descriptors of 16 bytes as numbers of 16 and of 32 bits: where their parts are. */
const shorts = 8;
const words = 4;
const idAt = 6;
const flagsAt = 7;
const lengthAt = 2;

/** See the file's comment. */
export class PackedVirtqueue implements Virtqueue {
  readonly #memory: GuestMemory;
  readonly #size: number;
  readonly #hasEventIndex: boolean;
  readonly #hasIndirect: boolean;
  readonly #table: DescriptorTable;
  readonly #shorts: Uint16Array;
  readonly #words: Uint32Array;
  /** Which event, and whether. */
  readonly #driverEvents: Uint16Array;
  readonly #deviceEvents: Uint16Array;
  readonly #available: Position;
  readonly #used: Position;
  /** Descriptors of the request with an id; 0 if none is under way. */
  readonly #lengths: Uint16Array;
  /** What is answered, and not seen by the driver yet. */
  #answers: { readonly id: number; readonly written: number }[] = [];

  /** @throws BrokenRing where a part of it does not lie in guest memory as it should */
  constructor(memory: GuestMemory, settings: RingSettings) {
    const { size, addresses, base, hasEventIndex, hasIndirect } = settings;
    this.#memory = memory;
    this.#size = size;
    this.#hasEventIndex = hasEventIndex;
    this.#hasIndirect = hasIndirect;
    this.#lengths = new Uint16Array(size);
    const { descriptors } = addresses;
    const table = ringPart(
      memory,
      'descriptors',
      descriptors,
      size * descriptorBytes,
      descriptorBytes,
    );
    this.#table = { ...table, size };
    this.#shorts = new Uint16Array(table.region.memory, table.offset, size * shorts);
    this.#words = new Uint32Array(table.region.memory, table.offset, size * words);
    const driver = ringPart(memory, 'events', addresses.available, eventBytes, 4);
    this.#driverEvents = new Uint16Array(driver.region.memory, driver.offset, 2);
    const device = ringPart(memory, 'events', addresses.used, eventBytes, 4);
    this.#deviceEvents = new Uint16Array(device.region.memory, device.offset, 2);
    this.#available = this.#positionOf(base & 0xffff);
    this.#used = this.#positionOf(base >>> 16);
  }

  get base(): number {
    return (numberOf(this.#available) | (numberOf(this.#used) << 16)) >>> 0;
  }

  take(): Chain | undefined {
    if (!this.#isAvailable()) return undefined;
    const { view } = this.#table.region;
    const chain: Chain = { head: 0, readable: [], writable: [] };
    const begin = this.#available.index;
    for (let count = 1; count <= this.#size; count++) {
      const at = this.#table.offset + ((begin + count - 1) % this.#size) * descriptorBytes;
      const address = addressAt(this.#table.region, at);
      const length = view.getUint32(at + 8, true);
      const id = view.getUint16(at + 12, true);
      const flags = view.getUint16(at + 14, true);
      const isLast = (flags & DescriptorFlag.next) === 0;
      if ((flags & DescriptorFlag.indirect) !== 0) this.#refer(chain, address, length, isLast);
      else addToChain(this.#memory, chain, address, length, flags);
      if (!isLast) continue;
      if (id >= this.#size || this.#lengths[id] !== 0) {
        throw new BrokenRing('a request has an id that it cannot have');
      }
      this.#lengths[id] = count;
      this.#advance(this.#available, count);
      return { ...chain, head: id };
    }
    throw new BrokenRing('a request has more descriptors than the queue');
  }

  complete(head: number, written: number): void {
    this.#answers.push({ id: head, written });
  }

  publish(): boolean {
    if (this.#answers.length === 0) return false;
    const [first, ...others] = this.#answers;
    this.#answers = [];
    const begin = { ...this.#used };
    // The driver looks at the first one before the others.
    this.#write(first.id, first.written);
    for (const { id, written } of others) {
      const { index, isOdd } = this.#used;
      this.#write(id, written);
      Atomics.store(this.#shorts, index * shorts + flagsAt, flagsOf(isOdd, written));
    }
    Atomics.store(
      this.#shorts,
      begin.index * shorts + flagsAt,
      flagsOf(begin.isOdd, first.written),
    );
    return this.#isWanted(begin);
  }

  wantNotification(): boolean {
    if (this.#hasEventIndex) this.#deviceEvents[0] = numberOf(this.#available);
    Atomics.store(this.#deviceEvents, 1, this.#hasEventIndex ? Events.one : Events.all);
    return this.#isAvailable();
  }

  refuseNotifications(): void {
    Atomics.store(this.#deviceEvents, 1, Events.none);
  }

  #refer(chain: Chain, address: number, length: number, isLast: boolean): void {
    // Whoever refers to others is the only one.
    const isAlone = isLast && chain.readable.length + chain.writable.length === 0;
    if (!this.#hasIndirect || !isAlone) {
      throw new BrokenRing('a descriptor refers to others that may not');
    }
    const { region, offset, size } = indirectTable(this.#memory, address, length);
    for (let index = 0; index < size; index++) {
      const at = offset + index * descriptorBytes;
      const part = region.view.getUint32(at + 8, true);
      const flags = region.view.getUint16(at + 14, true);
      addToChain(this.#memory, chain, addressAt(region, at), part, flags);
    }
  }

  #isAvailable(): boolean {
    const { index, isOdd } = this.#available;
    const flags = Atomics.load(this.#shorts, index * shorts + flagsAt);
    const isGiven = (flags & availableBit) !== 0;
    const isTaken = (flags & usedBit) !== 0;
    return isGiven === isOdd && isTaken !== isOdd;
  }

  /** Writes an answer but for its flags, and moves on. */
  #write(id: number, written: number): void {
    const { index } = this.#used;
    this.#words[index * words + lengthAt] = written;
    this.#shorts[index * shorts + idAt] = id;
    this.#advance(this.#used, this.#lengths[id]);
    this.#lengths[id] = 0;
  }

  /** Whether the driver wants to be told of what was answered since then. */
  #isWanted(since: Position): boolean {
    const wanted = Atomics.load(this.#driverEvents, 1);
    if (wanted === Events.none) return false;
    const hasWrapped = this.#used.isOdd !== since.isOdd;
    if (wanted !== Events.one || !this.#hasEventIndex || hasWrapped) return true;
    const event = Atomics.load(this.#driverEvents, 0);
    const isSameRound = ((event & roundBit) !== 0) === this.#used.isOdd;
    const index = (event & indexMask) - (isSameRound ? 0 : this.#size);
    const now = this.#used.index;
    return ((now - index - 1) & 0xffff) < ((now - since.index) & 0xffff);
  }

  #advance(position: Position, count: number): void {
    position.index += count;
    if (position.index < this.#size) return;
    position.index -= this.#size;
    position.isOdd = !position.isOdd;
  }

  #positionOf(number: number): Position {
    const index = number & indexMask;
    if (index >= this.#size) throw new BrokenRing('a queue goes on where it has no descriptor');
    return { index, isOdd: (number & roundBit) !== 0 };
  }
}

function numberOf({ index, isOdd }: Position): number {
  return index | (isOdd ? roundBit : 0);
}

function flagsOf(isOdd: boolean, written: number): number {
  return (isOdd ? availableBit | usedBit : 0) | (written > 0 ? DescriptorFlag.write : 0);
}
