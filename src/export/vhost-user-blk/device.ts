/**
 * A vhost-user block device as its front-end sees it: what the two agreed on, the guest's memory, and its
 * virtqueues, each of which one thread serves.
 */
import { closeDescriptor } from '../../native/descriptor.js';
import { createMemory } from '../../native/mapped-memory.js';
import {
  type BlockDeviceFacts,
  configBytes,
  configOf,
  featuresOf,
  writeCacheAt,
} from './block-config.js';
import type { DeviceLink, DeviceNumber, DeviceOrder, InflightPart } from './device-orders.js';
import type { RegionFacts } from './guest-memory.js';
import { inflightBytes } from './inflight.js';
import {
  type Message,
  PayloadReader,
  type Reply,
  closeAll,
  numberPayload,
  sendRequest,
} from './message.js';
import {
  BackendRequest,
  Feature,
  ProtocolFeature,
  Request,
  VhostUserError,
  bitsOf,
  has,
  mostRegions,
  mostRingSize,
  noDescriptorBit,
} from './protocol.js';
import type { RingAddresses } from './virtqueue.js';

/** A virtqueue. */
interface Vring {
  size: number;
  addresses: RingAddresses | undefined;
  base: number;
  isEnabled: boolean;
  isRunning: boolean;
  /** Whether the front-end has said what it is kicked by, be it nothing. */
  isKickable: boolean;
  kick: number | undefined;
  call: number | undefined;
  error: number | undefined;
}

/** The memory that knows what is under way. */
interface InflightMemory {
  readonly descriptor: number;
  readonly offset: number;
  readonly queues: number;
  readonly queueSize: number;
}

/** See the file's comment. */
export class VhostUserDevice {
  readonly #number: DeviceNumber;
  readonly #exportIndex: number;
  readonly #facts: BlockDeviceFacts;
  readonly #links: readonly DeviceLink[];
  readonly #vrings: Vring[];
  #features = 0n;
  #protocolFeatures = 0n;
  #regions: RegionFacts[] = [];
  #lastRegion = 0;
  #hasWriteCache = true;
  #inflight: InflightMemory | undefined;
  /** The socket of what this device asks for. */
  #channel: number | undefined;

  /**
   * @param exportIndex of the image, in every thread's list
   * @param links to the threads that share the queues
   */
  constructor(
    number: DeviceNumber,
    exportIndex: number,
    facts: BlockDeviceFacts,
    links: readonly DeviceLink[],
  ) {
    this.#number = number;
    this.#exportIndex = exportIndex;
    this.#facts = facts;
    this.#links = links;
    this.#vrings = Array.from({ length: facts.queues }, () => newVring());
  }

  /** Has all threads know of it. */
  async open(): Promise<void> {
    await this.#tellAll({ device: this.#number, kind: 'open', exportIndex: this.#exportIndex });
  }

  /** Answers what is under way, and gives everything back. */
  async close(): Promise<void> {
    await this.#tellAll({ device: this.#number, kind: 'close' });
    for (const vring of this.#vrings) closeEvents(vring);
    if (this.#inflight !== undefined) closeDescriptor(this.#inflight.descriptor);
    this.#inflight = undefined;
    this.#setChannel([]);
  }

  /** Has the front-end look at the configuration again, if it wants to be told. */
  sizeChanged(): void {
    if (this.#channel !== undefined) sendRequest(this.#channel, BackendRequest.configChange);
  }

  /** Whether answers are wanted to what has none of its own. */
  get acknowledges(): boolean {
    return has(this.#protocolFeatures, ProtocolFeature.REPLY_ACK);
  }

  /**
   * Does what a message asks for.
   *
   * @returns its answer, undefined for what has none
   * @throws VhostUserError for what is not understood, or cannot be done
   */
  async handle(message: Message): Promise<Reply | undefined> {
    const payload = new PayloadReader(message.payload);
    switch (message.request) {
      case Request.getFeatures:
        return { payload: numberPayload(featuresOf(this.#facts)) };
      case Request.setFeatures:
        await this.#setFeatures(payload.u64());
        return undefined;
      case Request.getProtocolFeatures:
        return { payload: numberPayload(this.#offered) };
      case Request.setProtocolFeatures:
        this.#protocolFeatures = payload.u64() & this.#offered;
        return undefined;
      case Request.setOwner:
        return undefined;
      case Request.resetOwner:
      case Request.resetDevice:
        await this.#reset();
        return undefined;
      case Request.getQueueNum:
        return { payload: numberPayload(BigInt(this.#facts.queues)) };
      case Request.getMaxMemSlots:
        return { payload: numberPayload(BigInt(mostRegions)) };
      case Request.setMemTable:
        await this.#setMemory(payload, message.descriptors);
        return undefined;
      case Request.addMemReg:
        await this.#addRegion(payload, message.descriptors);
        return undefined;
      case Request.remMemReg:
        await this.#removeRegion(payload);
        return undefined;
      case Request.getConfig:
        return { payload: this.#getConfig(payload) };
      case Request.setConfig:
        await this.#setConfig(payload);
        return undefined;
      case Request.setBackendReqFd:
        this.#setChannel(message.descriptors);
        return undefined;
      case Request.getInflightFd:
        return this.#makeInflight(payload);
      case Request.setInflightFd:
        this.#setInflight(payload, message.descriptors);
        return undefined;
      default:
        return await this.#handleVring(message, payload);
    }
  }

  async #handleVring(message: Message, payload: PayloadReader): Promise<Reply | undefined> {
    switch (message.request) {
      case Request.setVringNum: {
        const vring = this.#vringOf(payload.u32());
        const size = payload.u32();
        const isPower = size > 0 && (size & (size - 1)) === 0;
        if (!isPower || size > mostRingSize)
          throw new VhostUserError('a queue cannot be of that size');
        vring.size = size;
        return undefined;
      }
      case Request.setVringAddr: {
        const vring = this.#vringOf(payload.u32());
        payload.u32();
        const [descriptors, used, available] = [payload.size(), payload.size(), payload.size()];
        vring.addresses = { descriptors, used, available };
        return undefined;
      }
      case Request.setVringBase: {
        const vring = this.#vringOf(payload.u32());
        vring.base = payload.u32();
        return undefined;
      }
      case Request.getVringBase:
        return { payload: await this.#getBase(payload.u32()) };
      case Request.setVringEnable: {
        const index = payload.u32();
        const isEnabled = payload.u32() !== 0;
        this.#vringOf(index).isEnabled = isEnabled;
        if (isEnabled) await this.#startIfReady(index);
        else await this.#stop(index);
        return undefined;
      }
      case Request.setVringKick:
      case Request.setVringCall:
      case Request.setVringErr:
        await this.#setEvent(message, payload.u64());
        return undefined;
      default:
        throw new VhostUserError(`it asks for ${message.request}, which is not known here`);
    }
  }

  /** Protocol features; what is under way can be noted of split queues only. */
  get #offered(): bigint {
    const { MQ, REPLY_ACK, BACKEND_REQ, CONFIG } = ProtocolFeature;
    const { INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS } = ProtocolFeature;
    const always = [MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS];
    return bitsOf(this.#facts.isPacked ? always : [...always, INFLIGHT_SHMFD]);
  }

  /** @param descriptors that came along, of which it takes the first */
  #setChannel(descriptors: number[]): void {
    if (this.#channel !== undefined) closeDescriptor(this.#channel);
    this.#channel = descriptors.shift();
  }

  #vringOf(index: number): Vring {
    const vring = this.#vrings[index] as Vring | undefined;
    if (vring === undefined) throw new VhostUserError(`there is no queue ${index}`);
    return vring;
  }

  async #setFeatures(features: bigint): Promise<void> {
    if ((features & ~featuresOf(this.#facts)) !== 0n) {
      throw new VhostUserError('it wants features that were not offered');
    }
    this.#features = features;
    // Without it nothing enables a queue.
    if (!has(features, Feature.PROTOCOL_FEATURES)) {
      for (const vring of this.#vrings) vring.isEnabled = true;
    }
    await this.#tellWriteThrough();
  }

  /** Says whether changes have to be durable when they are answered (virtio 1.2, section 5.2.6.2). */
  async #tellWriteThrough(): Promise<void> {
    const hasCache = has(this.#features, Feature.CONFIG_WCE)
      ? this.#hasWriteCache
      : has(this.#features, Feature.FLUSH);
    await this.#tellAll({ device: this.#number, kind: 'write-through', isOn: !hasCache });
  }

  async #reset(): Promise<void> {
    for (const [index, vring] of this.#vrings.entries()) {
      await this.#stop(index);
      closeEvents(vring);
      this.#vrings[index] = newVring();
    }
    this.#features = 0n;
    this.#hasWriteCache = true;
  }

  async #setMemory(payload: PayloadReader, descriptors: readonly number[]): Promise<void> {
    const count = payload.u32();
    payload.u32();
    if (count !== descriptors.length) {
      throw new VhostUserError('regions of memory come without their descriptors');
    }
    const regions = descriptors.map((descriptor) => this.#readRegion(payload, descriptor));
    await this.#haveMemory(regions, true);
  }

  async #addRegion(payload: PayloadReader, descriptors: readonly number[]): Promise<void> {
    payload.u64();
    if (descriptors.length !== 1) {
      throw new VhostUserError('a region of memory comes without its descriptor');
    }
    if (this.#regions.length === mostRegions) {
      throw new VhostUserError('there are too many regions of memory');
    }
    const region = this.#readRegion(payload, descriptors[0]);
    await this.#haveMemory([...this.#regions, region], false);
  }

  async #removeRegion(payload: PayloadReader): Promise<void> {
    payload.u64();
    const [guestAddress, size, userAddress] = [payload.size(), payload.size(), payload.size()];
    const rest = this.#regions.filter(
      (each) =>
        each.guestAddress !== guestAddress ||
        each.userAddress !== userAddress ||
        each.size !== size,
    );
    if (rest.length === this.#regions.length) {
      throw new VhostUserError('a region of memory goes that was not there');
    }
    await this.#haveMemory(rest, true);
  }

  #readRegion(payload: PayloadReader, descriptor: number): RegionFacts {
    const [guestAddress, size, userAddress] = [payload.size(), payload.size(), payload.size()];
    const fileOffset = payload.size();
    const ends = [guestAddress + size, userAddress + size, fileOffset + size];
    if (size === 0 || ends.some((end) => !Number.isSafeInteger(end))) {
      throw new VhostUserError('a region of memory has a size that it cannot have');
    }
    this.#lastRegion += 1;
    return { id: this.#lastRegion, guestAddress, size, userAddress, fileOffset, descriptor };
  }

  /** @param isPaused whether queues must not run meanwhile, as their rings may lie elsewhere after it */
  async #haveMemory(regions: RegionFacts[], isPaused: boolean): Promise<void> {
    for (const [index, one] of regions.entries()) {
      if (regions.some((other, at) => at < index && overlap(one, other))) {
        throw new VhostUserError('regions of memory lie upon each other');
      }
    }
    const running = isPaused
      ? [...this.#vrings.keys()].filter((at) => this.#vrings[at].isRunning)
      : [];
    for (const index of running) await this.#stop(index);
    await this.#tellAll({ device: this.#number, kind: 'memory', regions });
    this.#regions = regions;
    for (const index of running) await this.#startIfReady(index);
  }

  #getConfig(payload: PayloadReader): Buffer {
    const [offset, size] = [payload.u32(), payload.u32()];
    payload.u32();
    const head = Buffer.alloc(12);
    head.writeUInt32LE(offset, 0);
    // An answer without a size says that it is not there.
    if (offset + size > 256) return head;
    head.writeUInt32LE(size, 4);
    const config = Buffer.alloc(256);
    configOf(this.#facts, this.#hasWriteCache).copy(config, 0, 0, configBytes);
    return Buffer.concat([head, config.subarray(offset, offset + size)]);
  }

  async #setConfig(payload: PayloadReader): Promise<void> {
    const [offset, size] = [payload.u32(), payload.u32()];
    payload.u32();
    const bytes = payload.rest();
    const isWriteCache = offset === writeCacheAt && size === 1 && bytes.length >= 1;
    if (!isWriteCache || bytes[0] > 1) {
      throw new VhostUserError('it changes what of the configuration cannot be changed');
    }
    this.#hasWriteCache = bytes[0] === 1;
    await this.#tellWriteThrough();
  }

  #makeInflight(payload: PayloadReader): Reply {
    payload.u64();
    payload.u64();
    const [queues, queueSize] = [payload.u16(), payload.u16()];
    if (
      queues === 0 ||
      queues > this.#facts.queues ||
      queueSize === 0 ||
      queueSize > mostRingSize
    ) {
      throw new VhostUserError('it wants to know what is under way in queues that are not there');
    }
    const size = queues * inflightBytes(queueSize);
    const descriptor = createMemory(size);
    if (descriptor < 0) throw new VhostUserError('there is no memory to note what is under way');
    this.#keepInflight({ descriptor, offset: 0, queues, queueSize });
    const answer = Buffer.alloc(24);
    answer.writeBigUInt64LE(BigInt(size), 0);
    answer.writeUInt16LE(queues, 16);
    answer.writeUInt16LE(queueSize, 18);
    return { payload: answer, descriptor };
  }

  #setInflight(payload: PayloadReader, descriptors: number[]): void {
    const [size, offset, queues, queueSize] = [
      payload.size(),
      payload.size(),
      payload.u16(),
      payload.u16(),
    ];
    const isWhole = size >= queues * inflightBytes(queueSize);
    const descriptor = descriptors.shift();
    if (descriptor === undefined)
      throw new VhostUserError('what is under way comes without memory');
    this.#keepInflight({ descriptor, offset, queues, queueSize });
    if (!isWhole) throw new VhostUserError('the memory of what is under way is too short');
  }

  #keepInflight(memory: InflightMemory): void {
    if (this.#inflight !== undefined) closeDescriptor(this.#inflight.descriptor);
    this.#inflight = memory;
  }

  #inflightOf(index: number, size: number): InflightPart | undefined {
    if (this.#inflight === undefined) return undefined;
    const { descriptor, offset, queues, queueSize } = this.#inflight;
    if (index >= queues || size > queueSize) {
      throw new VhostUserError('the memory of what is under way knows nothing of a queue');
    }
    return { descriptor, offset: offset + index * inflightBytes(queueSize) };
  }

  async #setEvent({ request, descriptors }: Message, value: bigint): Promise<void> {
    const index = Number(value & 0xffn);
    const vring = this.#vringOf(index);
    const isNone = (value & BigInt(noDescriptorBit)) !== 0n;
    const descriptor = isNone ? undefined : descriptors.shift();
    if (!isNone && descriptor === undefined) {
      throw new VhostUserError('an event comes without its descriptor');
    }
    const name = events[request];
    const former = vring[name];
    vring[name] = descriptor;
    if (name === 'kick') vring.isKickable = true;
    if (former !== undefined) closeDescriptor(former);
    if (vring.isRunning) {
      const { kick, call, error } = vring;
      await this.#order(index, {
        ...{ device: this.#number, kind: 'events', queue: index },
        events: { kick, call, error },
      });
    } else if (name === 'kick') {
      await this.#startIfReady(index);
    }
  }

  async #startIfReady(index: number): Promise<void> {
    const vring = this.#vringOf(index);
    const { isEnabled, isRunning, isKickable, addresses, size, base, kick, call, error } = vring;
    if (!isEnabled || isRunning || !isKickable || addresses === undefined || size === 0) return;
    await this.#order(index, {
      ...{ device: this.#number, kind: 'start', queue: index },
      settings: {
        ...{ size, addresses, base, isPacked: has(this.#features, Feature.RING_PACKED) },
        hasEventIndex: has(this.#features, Feature.EVENT_IDX),
        hasIndirect: has(this.#features, Feature.INDIRECT_DESC),
      },
      events: { kick, call, error },
      inflight: this.#inflightOf(index, size),
    });
    vring.isRunning = true;
  }

  async #stop(index: number): Promise<void> {
    const vring = this.#vringOf(index);
    if (!vring.isRunning) return;
    vring.isRunning = false;
    const order = { device: this.#number, kind: 'stop', queue: index } as const;
    vring.base = (await this.#order(index, order)) ?? vring.base;
  }

  async #getBase(index: number): Promise<Buffer> {
    const vring = this.#vringOf(index);
    await this.#stop(index);
    closeEvents(vring);
    vring.isKickable = false;
    const answer = Buffer.alloc(8);
    answer.writeUInt32LE(index, 0);
    answer.writeUInt32LE(vring.base, 4);
    return answer;
  }

  #order(index: number, order: DeviceOrder): Promise<number | undefined> {
    return this.#links[index % this.#links.length](order);
  }

  async #tellAll(order: DeviceOrder): Promise<void> {
    const told = await Promise.allSettled(this.#links.map((link) => link(order)));
    for (const each of told) if (each.status === 'rejected') throw each.reason as Error;
  }
}

const events: Readonly<Record<number, 'kick' | 'call' | 'error'>> = {
  [Request.setVringKick]: 'kick',
  [Request.setVringCall]: 'call',
  [Request.setVringErr]: 'error',
};

function newVring(): Vring {
  return {
    ...{ size: 0, addresses: undefined, base: 0 },
    ...{ isEnabled: false, isRunning: false, isKickable: false },
    ...{ kick: undefined, call: undefined, error: undefined },
  };
}

function closeEvents(vring: Vring): void {
  const { kick, call, error } = vring;
  closeAll([kick, call, error].filter((each) => each !== undefined));
  vring.kick = vring.call = vring.error = undefined;
}

function overlap(one: RegionFacts, other: RegionFacts): boolean {
  return (
    one.guestAddress < other.guestAddress + other.size &&
    other.guestAddress < one.guestAddress + one.size
  );
}
