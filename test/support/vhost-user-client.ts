/**
 * A front-end of vhost-user and a driver of block devices, for tests: guest memory in two regions, queues of
 * either form, requests framed as a test wants them. Events are FIFOs, which serve as eventfds do.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  type DescriptorWatch,
  closeDescriptor,
  duplicateDescriptor,
  receiveMessage,
  sendMessage,
  signalEvent,
  watchEvent,
  watchSocket,
} from '../../src/native/descriptor.js';
import { createMemory, mapMemory } from '../../src/native/mapped-memory.js';
import { Feature, Request, bitsOf } from '../../src/export/vhost-user-blk/protocol.js';

/** Where guest memory begins for the guest, and for the front-end. */
const guestBase = 0x100000;
const userBase = 0x7f00_0000_0000;
const memoryBytes = 16 * 1024 * 1024;
const pageBytes = 4096;
/** Bytes that the rings of a queue take. */
const ringBytes = 16 * pageBytes;
/** Bytes for the data of a request. */
const slotBytes = 256 * 1024;

/** What a client asks for. */
export interface ClientOptions {
  readonly queues?: number;
  /** Descriptors of a queue. */
  readonly size?: number;
  readonly packed?: boolean;
  readonly features?: readonly bigint[];
  /** Keeps what is under way, and goes on with it. */
  readonly inflight?: InflightOfClient;
}

/** What outlives a server: guest memory and queues, and the memory that knows what is under way. */
export interface InflightOfClient {
  descriptor?: number | undefined;
  payload?: Buffer;
}

/** A part of a request: so many bytes, that the device reads or writes. */
export interface Part {
  readonly length: number;
  readonly isWritable: boolean;
}

/** Features that drivers want by default. */
export const usualFeatures = [
  ...[Feature.VERSION_1, Feature.PROTOCOL_FEATURES, Feature.FLUSH, Feature.CONFIG_WCE, Feature.MQ],
  ...[Feature.DISCARD, Feature.WRITE_ZEROES, Feature.INDIRECT_DESC, Feature.EVENT_IDX],
];

/** Guest memory that clients work in, one after the other. */
export class GuestRam {
  readonly descriptor: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor() {
    this.descriptor = createMemory(memoryBytes);
    const memory = mapMemory(this.descriptor, 0, memoryBytes);
    assert.ok(typeof memory !== 'number');
    this.bytes = memory;
    this.view = new DataView(memory.buffer);
  }

  close(): void {
    closeDescriptor(this.descriptor);
  }
}

/** A FIFO with both ends in one descriptor. */
export async function makeEvent(): Promise<number> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-event-'));
  const name = path.join(folder, 'event');
  execFileSync('mkfifo', [name]);
  const descriptor = openSync(name, constants.O_RDWR | constants.O_NONBLOCK);
  await rm(folder, { recursive: true });
  return descriptor;
}

/** See the file's comment. */
export class VhostUserClient {
  readonly ram: GuestRam;
  readonly queues: DriverQueue[];
  /** Its end of the connection. */
  readonly socket: number;
  readonly #watch: DescriptorWatch;
  #received = Buffer.alloc(0);
  /** Descriptors that came along with answers. */
  readonly #arrived: number[] = [];
  #isEnded = false;
  #onReceived: (() => void) | undefined;

  private constructor(socket: number, former: VhostUserClient | undefined) {
    this.socket = socket;
    this.ram = former?.ram ?? new GuestRam();
    this.queues = former?.queues ?? [];
    const watch = watchSocket(socket, () => {
      this.#receive();
    });
    assert.ok(typeof watch !== 'number');
    this.#watch = watch;
  }

  /** Connects, without a word. @param former whose memory and queues it takes over */
  static async connect(socketPath: string, former?: VhostUserClient): Promise<VhostUserClient> {
    const descriptor = await new Promise<number>((resolve, reject) => {
      const socket = connect(socketPath, () => {
        const { _handle: handle } = socket as unknown as { _handle: { fd: number } };
        resolve(duplicateDescriptor(handle.fd));
        socket.destroy();
      });
      socket.once('error', reject);
    });
    return new VhostUserClient(descriptor, former);
  }

  /** Connects, and has the queues run. */
  static async start(
    socketPath: string,
    options: ClientOptions = {},
    former?: VhostUserClient,
  ): Promise<VhostUserClient> {
    const client = await VhostUserClient.connect(socketPath, former);
    await client.agree(options);
    await client.startQueues(options);
    return client;
  }

  /** Agrees on features and shares memory. */
  async agree({
    features = usualFeatures,
    packed = false,
    inflight,
  }: ClientOptions): Promise<void> {
    const all = bitsOf(packed ? [...features, Feature.RING_PACKED] : features);
    await this.ask(Request.getFeatures);
    const protocolFeatures = (await this.ask(Request.getProtocolFeatures)).readBigUInt64LE();
    this.tell(Request.setProtocolFeatures, numberOf(protocolFeatures));
    this.tell(Request.setOwner);
    await this.acknowledged(Request.setFeatures, numberOf(all));
    const half = memoryBytes / 2;
    for (const offset of [0, half]) {
      const region = numbers(0, guestBase + offset, half, userBase + offset, offset);
      await this.acknowledged(Request.addMemReg, region, [this.ram.descriptor]);
    }
    if (inflight !== undefined) await this.#shareInflight(inflight);
  }

  async #shareInflight(inflight: InflightOfClient): Promise<void> {
    if (inflight.payload === undefined) {
      const wanted = Buffer.alloc(24);
      wanted.writeUInt16LE(4, 16);
      wanted.writeUInt16LE(128, 18);
      inflight.payload = await this.ask(Request.getInflightFd, wanted);
      inflight.descriptor = this.#arrived.shift();
    }
    assert.ok(inflight.descriptor !== undefined);
    await this.acknowledged(Request.setInflightFd, inflight.payload, [inflight.descriptor]);
  }

  /** Has all queues run, each where the driver has left it. */
  async startQueues({ queues = 1, size = 64, packed = false }: ClientOptions): Promise<void> {
    for (let index = 0; index < queues; index++) {
      const base = index * ringBytes;
      this.queues[index] ??= await DriverQueue.open(this.ram, base, index, size, packed);
      const { addresses, kick, call } = this.queues[index];
      const used = this.ram.view.getUint16(base + addresses.used + 2, true);
      this.tell(Request.setVringNum, pair(index, size));
      this.tell(Request.setVringBase, pair(index, packed ? 0x80008000 : used));
      const { descriptors, used: usedAt, available } = addresses;
      const [d, u, a] = [descriptors, usedAt, available].map((each) => userBase + base + each);
      this.tell(Request.setVringAddr, Buffer.concat([pair(index, 0), numbers(d, u, a, 0)]));
      this.tell(Request.setVringCall, numberOf(BigInt(index)), [call]);
      this.tell(Request.setVringKick, numberOf(BigInt(index)), [kick]);
      await this.acknowledged(Request.setVringEnable, pair(index, 1));
    }
  }

  /** Sends a message. */
  send(request: number, flags: number, payload: Uint8Array, descriptors: readonly number[]): void {
    const head = Buffer.alloc(12);
    head.writeUInt32LE(request, 0);
    head.writeUInt32LE(flags, 4);
    head.writeUInt32LE(payload.length, 8);
    this.sendBytes(Buffer.concat([head, payload]), descriptors);
  }

  sendBytes(bytes: Uint8Array, descriptors: readonly number[] = []): number {
    return sendMessage(this.socket, bytes, Int32Array.from(descriptors));
  }

  tell(request: number, payload: Uint8Array = Buffer.alloc(0), descriptors: number[] = []): void {
    this.send(request, 1, payload, descriptors);
  }

  /** Sends what has an answer. @returns its payload */
  async ask(request: number, payload: Uint8Array = Buffer.alloc(0)): Promise<Buffer> {
    this.tell(request, payload);
    return await this.answer(request);
  }

  /** Sends what has no answer of its own. @returns whether it was done */
  async tried(request: number, payload: Uint8Array, descriptors: number[] = []): Promise<boolean> {
    this.send(request, 9, payload, descriptors);
    return (await this.answer(request)).readBigUInt64LE() === 0n;
  }

  async acknowledged(
    request: number,
    payload: Uint8Array,
    descriptors: number[] = [],
  ): Promise<void> {
    assert.ok(await this.tried(request, payload, descriptors), `request ${request} is done`);
  }

  /** The next answer. @throws if the connection ends first */
  async answer(request: number): Promise<Buffer> {
    const head = await this.#take(12);
    assert.equal(head.readUInt32LE(0), request);
    assert.equal(head.readUInt32LE(4), 5);
    return await this.#take(head.readUInt32LE(8));
  }

  /** Resolves when the other side has closed. */
  async ended(): Promise<void> {
    while (!this.#isEnded) await this.#more();
  }

  /** Leaves without a word. */
  close(): void {
    this.disconnect();
    for (const queue of this.queues) queue.close();
    this.ram.close();
  }

  /** As `close`, but for what another client takes over. */
  disconnect(): void {
    this.#watch.close();
    closeDescriptor(this.socket);
    for (const descriptor of this.#arrived.splice(0)) closeDescriptor(descriptor);
  }

  async #take(count: number): Promise<Buffer> {
    while (this.#received.length < count) {
      if (this.#isEnded) throw new Error('the connection has ended');
      await this.#more();
    }
    const taken = this.#received.subarray(0, count);
    this.#received = this.#received.subarray(count);
    return taken;
  }

  async #more(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#onReceived = resolve;
    });
  }

  #receive(): void {
    const into = Buffer.alloc(65536);
    const descriptors = new Int32Array(8);
    const count = receiveMessage(this.socket, into, descriptors);
    if (count > 0) {
      this.#received = Buffer.concat([this.#received, into.subarray(0, count)]);
      for (const descriptor of descriptors) {
        if (descriptor < 0) break;
        this.#arrived.push(descriptor);
      }
    } else {
      this.#isEnded = true;
      this.#watch.close();
    }
    this.#onReceived?.();
  }
}

/** One virtqueue, as a driver has it. */
export class DriverQueue {
  readonly addresses: { descriptors: number; available: number; used: number };
  readonly kick: number;
  readonly call: number;
  readonly #ram: GuestRam;
  readonly #base: number;
  readonly #index: number;
  readonly #size: number;
  readonly #isPacked: boolean;
  readonly #watch: DescriptorWatch;
  readonly #freeSlots: number[] = [];
  /** Free descriptors of a split queue, free ids of a packed one. */
  readonly #free: number[] = [];
  readonly #waiting = new Map<number, (written: number) => void>();
  readonly #taken = new Map<number, number[]>();
  #next = 0;
  #nextUsed = 0;
  #isOdd = true;
  #isUsedOdd = true;
  #room: number;
  /** Times that the device has told of answers. */
  calls = 0;

  private constructor(
    ram: GuestRam,
    base: number,
    index: number,
    size: number,
    isPacked: boolean,
    events: { readonly kick: number; readonly call: number },
  ) {
    this.#ram = ram;
    this.#base = base;
    this.#index = index;
    this.#size = size;
    this.#isPacked = isPacked;
    this.#room = size;
    this.addresses = { descriptors: 0, available: 4 * pageBytes, used: 8 * pageBytes };
    this.kick = events.kick;
    this.call = events.call;
    for (let each = size - 1; each >= 0; each--) this.#free.push(each);
    for (let slot = 7; slot >= 0; slot--) this.#freeSlots.push(slot);
    const watch = watchEvent(this.call, () => {
      this.calls += 1;
      this.reap();
    });
    assert.ok(typeof watch !== 'number');
    this.#watch = watch;
  }

  static async open(
    ram: GuestRam,
    base: number,
    index: number,
    size: number,
    isPacked: boolean,
  ): Promise<DriverQueue> {
    const [kick, call] = [await makeEvent(), await makeEvent()];
    return new DriverQueue(ram, base, index, size, isPacked, { kick, call });
  }

  /**
   * Does a request.
   *
   * @param content of the parts that the device reads, one after the other
   * @param parts the framing of all of it
   * @param isIndirect whether one descriptor refers to all of them
   * @returns what the device wrote, in all parts that it may write
   */
  async request(content: Uint8Array, parts: readonly Part[], isIndirect = false): Promise<Buffer> {
    const slot = this.#freeSlots.pop();
    assert.ok(slot !== undefined, 'eight requests at a time');
    const data = memoryBytes / 2 - slotBytes + (this.#index * 8 + slot) * (slotBytes - 512);
    const { bytes } = this.#ram;
    bytes.set(content, data);
    const read = parts.filter(({ isWritable }) => !isWritable);
    const total = parts.reduce((sum, { length }) => sum + length, 0);
    const readable = read.reduce((sum, { length }) => sum + length, 0);
    assert.ok(readable === content.length && total + parts.length * 16 < slotBytes - 1024);
    bytes.fill(0xee, data + readable, data + total);
    const written = await this.submit(data, parts, isIndirect);
    assert.ok(written <= total - readable);
    this.#freeSlots.push(slot);
    return Buffer.from(bytes.slice(data + readable, data + total));
  }

  /** Gives a request to the device, whose parts follow each other from a place in memory on. */
  submit(data: number, parts: readonly Part[], isIndirect: boolean): Promise<number> {
    const total = parts.reduce((sum, { length }) => sum + length, 0);
    let at = data;
    const described = parts.map(({ length, isWritable }) => {
      const address = guestBase + at;
      at += length;
      return { address, length, flags: isWritable ? 2 : 0 };
    });
    if (!isIndirect) return this.offer(described);
    const table = Math.ceil((data + total) / 16) * 16;
    described.forEach(({ address, length, flags }, index) => {
      const isLast = index === described.length - 1;
      const [third, fourth] = this.#isPacked ? [0, flags] : [flags | (isLast ? 0 : 1), index + 1];
      writeDescriptor(this.#ram.view, table + index * 16, address, length, third, fourth);
    });
    return this.offer([{ address: guestBase + table, length: described.length * 16, flags: 4 }]);
  }

  /** Gives descriptors to the device as they are. @returns bytes that it says it wrote */
  offer(described: readonly { address: number; length: number; flags: number }[]): Promise<number> {
    return this.#isPacked ? this.#offerPacked(described) : this.#offerSplit(described);
  }

  #offerSplit(
    described: readonly { address: number; length: number; flags: number }[],
  ): Promise<number> {
    const taken = described.map(() => this.#free.pop()!);
    assert.ok(!taken.includes(undefined as never), 'there are descriptors left');
    described.forEach(({ address, length, flags }, index) => {
      const isLast = index === described.length - 1;
      const at = this.#base + this.addresses.descriptors + taken[index] * 16;
      const next = isLast ? 0 : taken[index + 1];
      writeDescriptor(this.#ram.view, at, address, length, flags | (isLast ? 0 : 1), next);
    });
    this.#taken.set(taken[0], taken);
    return this.expose(taken[0]);
  }

  /** Makes a head available in a split ring. */
  expose(head: number): Promise<number> {
    const available = this.#base + this.addresses.available;
    const { view, bytes } = this.#ram;
    view.setUint16(available + 4 + (this.#next % this.#size) * 2, head, true);
    this.#next = (this.#next + 1) & 0xffff;
    const answered = new Promise<number>((resolve) => {
      this.#waiting.set(head, resolve);
    });
    // Asks to be told of the next answer.
    view.setUint16(available + 4 + this.#size * 2, this.#nextUsed, true);
    Atomics.store(new Uint16Array(bytes.buffer, available + 2, 1), 0, this.#next);
    signalEvent(this.kick);
    return answered;
  }

  #offerPacked(
    described: readonly { address: number; length: number; flags: number }[],
  ): Promise<number> {
    const id = this.#free.pop()!;
    assert.ok(described.length <= this.#room, 'there are descriptors left');
    this.#room -= described.length;
    this.#taken.set(
      id,
      Array.from(described, () => 0),
    );
    const first = { index: this.#next, isOdd: this.#isOdd };
    const { view, bytes } = this.#ram;
    let firstFlags = 0;
    described.forEach(({ address, length, flags }, index) => {
      const isLast = index === described.length - 1;
      const round = this.#isOdd ? 0x80 : 0x8000;
      const all = flags | (isLast ? 0 : 1) | round;
      const at = this.#base + this.#next * 16;
      const keeps = index === 0 ? view.getUint16(at + 14, true) : all;
      writeDescriptor(view, at, address, length, id, keeps);
      if (index === 0) firstFlags = all;
      this.#next += 1;
      if (this.#next < this.#size) return;
      this.#next = 0;
      this.#isOdd = !this.#isOdd;
    });
    const answered = new Promise<number>((resolve) => {
      this.#waiting.set(id, resolve);
    });
    const at = this.#base + first.index * 16 + 14;
    Atomics.store(new Uint16Array(bytes.buffer, at, 1), 0, firstFlags);
    signalEvent(this.kick);
    return answered;
  }

  /** Takes answers. */
  reap(): void {
    if (this.#isPacked) this.#reapPacked();
    else this.#reapSplit();
  }

  #reapSplit(): void {
    const used = this.#base + this.addresses.used;
    const { view } = this.#ram;
    const index = new Uint16Array(this.#ram.bytes.buffer, used + 2, 1);
    while (Atomics.load(index, 0) !== this.#nextUsed) {
      const entry = used + 4 + (this.#nextUsed % this.#size) * 8;
      this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
      view.setUint16(
        this.#base + this.addresses.available + 4 + this.#size * 2,
        this.#nextUsed,
        true,
      );
      this.#answered(view.getUint32(entry, true), view.getUint32(entry + 4, true));
    }
  }

  #reapPacked(): void {
    for (;;) {
      const at = this.#base + this.#nextUsed * 16;
      const flags = Atomics.load(new Uint16Array(this.#ram.bytes.buffer, at + 14, 1), 0);
      const isUsed = ((flags & 0x80) !== 0) === this.#isUsedOdd;
      if (!isUsed || ((flags & 0x8000) !== 0) !== this.#isUsedOdd) return;
      const id = this.#ram.view.getUint16(at + 12, true);
      const count = this.#taken.get(id)?.length ?? 1;
      this.#room += count;
      this.#nextUsed += count;
      if (this.#nextUsed >= this.#size) {
        this.#nextUsed -= this.#size;
        this.#isUsedOdd = !this.#isUsedOdd;
      }
      this.#answered(id, this.#ram.view.getUint32(at + 8, true));
    }
  }

  #answered(head: number, written: number): void {
    const taken = this.#taken.get(head);
    if (this.#isPacked) this.#free.push(head);
    else if (taken !== undefined) this.#free.push(...taken);
    this.#taken.delete(head);
    this.#waiting.get(head)?.(written);
    this.#waiting.delete(head);
  }

  close(): void {
    this.#watch.close();
    closeSync(this.kick);
    closeSync(this.call);
  }
}

function writeDescriptor(
  view: DataView,
  at: number,
  address: number,
  length: number,
  third: number,
  fourth: number,
): void {
  view.setBigUint64(at, BigInt(address), true);
  view.setUint32(at + 8, length, true);
  view.setUint16(at + 12, third, true);
  view.setUint16(at + 14, fourth, true);
}

/** A payload of numbers of 64 bits. */
export function numbers(...values: readonly number[]): Buffer {
  const payload = Buffer.alloc(8 * values.length);
  values.forEach((value, index) => payload.writeBigUInt64LE(BigInt(value), index * 8));
  return payload;
}

/** A payload of two numbers of 32 bits. */
export function pair(one: number, other: number): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeUInt32LE(one, 0);
  payload.writeUInt32LE(other, 4);
  return payload;
}

export function numberOf(value: bigint): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeBigUInt64LE(value);
  return payload;
}

/** The head of a request. */
export function header(type: number, sector: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(type, 0);
  bytes.writeBigUInt64LE(BigInt(sector), 8);
  return bytes;
}
