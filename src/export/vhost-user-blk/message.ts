/** Messages of vhost-user as they come over a socket, with the descriptors that they bring. */
import { fstatSync } from 'node:fs';
import {
  type DescriptorWatch,
  closeDescriptor,
  receiveMessage,
  sendMessage,
  watchSocket,
} from '../../native/descriptor.js';
import { errnoName } from '../../system-errors.js';
import {
  MessageFlag,
  headerBytes,
  mostDescriptors,
  mostPayloadBytes,
  Request,
  VhostUserError,
} from './protocol.js';

/** Milliseconds in which a front-end has to begin, and to end each message. */
const patienceMs = 10_000;
/** Messages that are kept at most while one is dealt with; the others wait in the socket. */
const mostWaiting = 64;

/** What a front-end says. */
export interface Message {
  readonly request: number;
  /** Whether it waits for an answer, even to what has none. */
  readonly needsReply: boolean;
  readonly payload: Buffer;
  /** What came along; whoever keeps one takes it out, the others are closed. */
  readonly descriptors: number[];
}

/** What is answered. */
export interface Reply {
  readonly payload: Buffer;
  /** Goes along, and stays the sender's. */
  readonly descriptor?: number;
}

/** Takes messages apart that come over a connected socket. */
export class MessageReader {
  readonly #socket: number;
  readonly #onMessage: () => void;
  readonly #onEnd: (why: string | undefined) => void;
  readonly #header = Buffer.alloc(headerBytes);
  readonly #arrived = new Int32Array(mostDescriptors);
  readonly #waiting: Message[] = [];
  #payload: Buffer | undefined;
  #descriptors: number[] = [];
  /** Bytes of the header, or else of the payload, that are there. */
  #done = 0;
  #watch: DescriptorWatch | undefined;
  #isEnded = false;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param socket stays the caller's
   * @param onMessage called when `next` has something
   * @param onEnd called once, when nothing more comes; with a reason if the front-end did not end properly
   */
  constructor(socket: number, onMessage: () => void, onEnd: (why: string | undefined) => void) {
    this.#socket = socket;
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
    this.#listen();
    this.#expect('the front-end says nothing');
  }

  /** The next message that is all there. */
  next(): Message | undefined {
    const message = this.#waiting.shift();
    if (!this.#isEnded && this.#watch === undefined && this.#waiting.length < mostWaiting) {
      this.#listen();
    }
    return message;
  }

  /** Takes nothing more, and closes what came along with what nobody took. */
  close(): void {
    this.#isEnded = true;
    clearTimeout(this.#timer);
    this.#watch?.close();
    this.#watch = undefined;
    closeAll(this.#descriptors);
    for (const { descriptors } of this.#waiting.splice(0)) closeAll(descriptors);
  }

  /** Ends if nothing more comes for a while. */
  #expect(otherwise: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#end(otherwise);
    }, patienceMs);
  }

  #listen(): void {
    const watch = watchSocket(this.#socket, () => {
      this.#receive();
    });
    if (typeof watch === 'number') this.#end(`its socket cannot be read: ${errnoName(watch)}`);
    else this.#watch = watch;
  }

  #receive(): void {
    while (!this.#isEnded && this.#watch !== undefined) {
      const into = (this.#payload ?? this.#header).subarray(this.#done);
      const count = receiveMessage(this.#socket, into, this.#arrived);
      if (count < 0) {
        const name = errnoName(count);
        if (name !== 'EAGAIN') this.#end(name === 'ECONNRESET' ? undefined : name);
        return;
      }
      for (const descriptor of this.#arrived) {
        if (descriptor < 0) break;
        this.#descriptors.push(descriptor);
      }
      if (count === 0) {
        const isMiddle = this.#done > 0 || this.#payload !== undefined;
        this.#end(isMiddle ? 'the front-end has gone in the middle of a message' : undefined);
        return;
      }
      if (this.#descriptors.length > mostDescriptors) {
        this.#end('a message brings too many descriptors');
        return;
      }
      this.#done += count;
      if (count === into.length) this.#goOn();
      else this.#expect('a message is not sent to its end');
    }
  }

  /** Deals with a header, or a message, that is all there. */
  #goOn(): void {
    const flags = this.#header.readUInt32LE(4);
    this.#done = 0;
    if (this.#payload === undefined) {
      const size = this.#header.readUInt32LE(8);
      const isMessage = (flags & MessageFlag.versionMask) === MessageFlag.version;
      if (!isMessage || (flags & MessageFlag.reply) !== 0 || size > mostPayloadBytes) {
        this.#end('a message does not begin as one');
        return;
      }
      this.#payload = Buffer.alloc(size);
      if (size > 0) return;
    }
    const request = this.#header.readUInt32LE(0);
    const isSocket = (descriptor: number): boolean => fstatSync(descriptor).isSocket();
    // One that is kept could be the other end of this very one, which would never end then.
    if (request !== Request.setBackendReqFd && this.#descriptors.some(isSocket)) {
      this.#end('a message brings a socket');
      return;
    }
    this.#waiting.push({
      request,
      needsReply: (flags & MessageFlag.needReply) !== 0,
      payload: this.#payload,
      descriptors: this.#descriptors,
    });
    this.#payload = undefined;
    this.#descriptors = [];
    clearTimeout(this.#timer);
    if (this.#waiting.length >= mostWaiting) {
      this.#watch?.close();
      this.#watch = undefined;
    }
    this.#onMessage();
  }

  #end(why: string | undefined): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#watch?.close();
    this.#watch = undefined;
    this.#onEnd(why);
  }
}

/** Closes descriptors, and leaves the list empty. */
export function closeAll(descriptors: number[]): void {
  for (const descriptor of descriptors.splice(0)) closeDescriptor(descriptor);
}

/** Sends an answer. @throws VhostUserError if the front-end does not take it */
export function sendReply(socket: number, request: number, { payload, descriptor }: Reply): void {
  const bytes = Buffer.alloc(headerBytes + payload.length);
  bytes.writeUInt32LE(request, 0);
  bytes.writeUInt32LE(MessageFlag.version | MessageFlag.reply, 4);
  bytes.writeUInt32LE(payload.length, 8);
  payload.copy(bytes, headerBytes);
  const along = Int32Array.from(descriptor === undefined ? [] : [descriptor]);
  const sent = sendMessage(socket, bytes, along);
  if (sent !== bytes.length) throw new VhostUserError('the front-end does not take its answers');
}

/** Sends a request that has no payload, to a front-end that takes those; one that does not is not told. */
export function sendRequest(socket: number, request: number): void {
  const bytes = Buffer.alloc(headerBytes);
  bytes.writeUInt32LE(request, 0);
  bytes.writeUInt32LE(MessageFlag.version, 4);
  sendMessage(socket, bytes, new Int32Array(0));
}

/** A payload of one number of 64 bits. */
export function numberPayload(value: bigint): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeBigUInt64LE(value);
  return payload;
}

/** Reads a payload from its begin to its end. */
export class PayloadReader {
  readonly #payload: Buffer;
  #at = 0;

  constructor(payload: Buffer) {
    this.#payload = payload;
  }

  u16(): number {
    return this.#payload.readUInt16LE(this.#take(2));
  }

  u32(): number {
    return this.#payload.readUInt32LE(this.#take(4));
  }

  u64(): bigint {
    return this.#payload.readBigUInt64LE(this.#take(8));
  }

  /** A number of 64 bits that is an address or a length. @throws VhostUserError beyond 2^53 */
  size(): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new VhostUserError('a message names an address that there cannot be');
    }
    return Number(value);
  }

  /** What is left. */
  rest(): Buffer {
    return this.#payload.subarray(this.#at);
  }

  #take(count: number): number {
    const at = this.#at;
    this.#at += count;
    if (this.#at > this.#payload.length) throw new VhostUserError('a message is too short');
    return at;
  }
}
