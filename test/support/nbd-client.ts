/** An NBD client for tests, written from the protocol document alone: many requests at a time, as raw as wanted. */
import { type Socket, connect } from 'node:net';

/** How a client connects. */
export interface NbdClientOptions {
  readonly name?: string;
  readonly style?: 'simple' | 'structured' | 'extended';
  readonly contexts?: readonly string[];
}

/** The end of a request: its error, what it read, the stretches of each metadata context. */
export interface NbdReply {
  readonly error: number;
  readonly data: Buffer;
  readonly status: ReadonlyMap<number, readonly (readonly [length: number, state: number])[]>;
}

interface Waiting {
  readonly length: number;
  readonly isRead: boolean;
  data: Buffer;
  error: number;
  readonly status: Map<number, (readonly [number, number])[]>;
  readonly resolve: (reply: NbdReply) => void;
  readonly reject: (error: Error) => void;
}

const optionMagic = Buffer.from('IHAVEOPT');

/** Bytes of a socket, in order. */
class Bytes {
  #received: Buffer = Buffer.alloc(0);
  #wanted:
    { length: number; resolve: (bytes: Buffer) => void; reject: (e: Error) => void } | undefined;
  #failure: Error | undefined;

  constructor(socket: Socket) {
    socket.on('data', (data: Buffer) => {
      this.#received = Buffer.concat([this.#received, data]);
      this.#give();
    });
    const fail = (error?: Error): void => {
      this.#failure ??= error ?? new Error('the server closed the connection');
      this.#wanted?.reject(this.#failure);
      this.#wanted = undefined;
    };
    socket.on('error', fail);
    socket.on('close', () => {
      fail();
    });
  }

  take(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { length, resolve, reject };
      this.#give();
      if (this.#failure !== undefined) reject(this.#failure);
    });
  }

  #give(): void {
    const wanted = this.#wanted;
    if (wanted === undefined || this.#received.length < wanted.length) return;
    this.#wanted = undefined;
    const bytes = this.#received.subarray(0, wanted.length);
    this.#received = this.#received.subarray(wanted.length);
    wanted.resolve(bytes);
  }
}

/** See the file's comment. */
export class NbdClient {
  size = 0;
  flags = 0;
  /** Ids of the metadata contexts that were agreed on, by name. */
  readonly contexts = new Map<string, number>();
  readonly socket: Socket;
  readonly #bytes: Bytes;
  readonly #options: NbdClientOptions;
  readonly #waiting = new Map<number, Waiting>();
  #lastCookie = 0;

  private constructor(socket: Socket, options: NbdClientOptions) {
    this.socket = socket;
    this.#bytes = new Bytes(socket);
    this.#options = options;
  }

  /** Connects to a Unix socket, or a port of this host, and agrees on an export. */
  static async connect(place: string | number, options: NbdClientOptions = {}): Promise<NbdClient> {
    const socket = typeof place === 'string' ? connect(place) : connect(place, '127.0.0.1');
    const client = new NbdClient(socket, options);
    await client.#handshake();
    void client.#receive();
    return client;
  }

  read(offset: number, length: number): Promise<NbdReply> {
    return this.request(0, { offset, length, isRead: true });
  }

  write(offset: number, data: Uint8Array, flags = 0): Promise<NbdReply> {
    return this.request(1, { offset, length: data.length, data, flags });
  }

  flush(): Promise<NbdReply> {
    return this.request(3, { offset: 0, length: 0 });
  }

  trim(offset: number, length: number): Promise<NbdReply> {
    return this.request(4, { offset, length });
  }

  writeZeroes(offset: number, length: number, flags = 0): Promise<NbdReply> {
    return this.request(6, { offset, length, flags });
  }

  blockStatus(offset: number, length: number, flags = 0): Promise<NbdReply> {
    return this.request(7, { offset, length, flags });
  }

  /** Sends a request. @throws if the connection ends before its reply */
  request(
    command: number,
    {
      offset,
      length,
      flags = 0,
      data,
      isRead = false,
    }: {
      readonly offset: number | bigint;
      readonly length: number;
      readonly flags?: number;
      readonly data?: Uint8Array;
      readonly isRead?: boolean;
    },
  ): Promise<NbdReply> {
    const cookie = ++this.#lastCookie;
    const isExtended = this.#options.style === 'extended';
    const head = Buffer.alloc(isExtended ? 32 : 28);
    head.writeUInt32BE(isExtended ? 0x21e41c71 : 0x25609513, 0);
    head.writeUInt16BE(flags | (isExtended && data !== undefined && cookie % 2 === 0 ? 32 : 0), 4);
    head.writeUInt16BE(command, 6);
    head.writeBigUInt64BE(BigInt(cookie), 8);
    head.writeBigUInt64BE(BigInt(offset), 16);
    if (isExtended) head.writeBigUInt64BE(BigInt(length), 24);
    else head.writeUInt32BE(length, 24);
    this.socket.write(head);
    if (data !== undefined) this.socket.write(data);
    return new Promise((resolve, reject) => {
      const empty = Buffer.alloc(0);
      const common = { length, isRead, data: empty, error: 0, status: new Map() };
      this.#waiting.set(cookie, { ...common, resolve, reject });
    });
  }

  /** Says goodbye, and waits until the server has closed the connection. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.socket.once('close', resolve);
    });
    const head = Buffer.alloc(this.#options.style === 'extended' ? 32 : 28);
    head.writeUInt32BE(this.#options.style === 'extended' ? 0x21e41c71 : 0x25609513, 0);
    head.writeUInt16BE(2, 6);
    this.socket.end(head);
    this.socket.resume();
    await closed;
  }

  async #handshake(): Promise<void> {
    const { name = '', style = 'simple', contexts = [] } = this.#options;
    const greeting = await this.#bytes.take(18);
    if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('no greeting');
    this.socket.write(Buffer.from([0, 0, 0, 3]));
    if (style === 'structured') await this.option(8);
    if (style === 'extended') await this.option(11);
    const named = (text: string): Buffer => {
      const bytes = Buffer.from(text);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      return Buffer.concat([length, bytes]);
    };
    if (contexts.length > 0) {
      const count = Buffer.alloc(4);
      count.writeUInt32BE(contexts.length);
      const replies = await this.option(
        10,
        Buffer.concat([named(name), count, ...contexts.map(named)]),
      );
      for (const { type, data } of replies) {
        if (type === 4) this.contexts.set(data.toString('utf8', 4), data.readUInt32BE(0));
      }
    }
    const replies = await this.option(7, Buffer.concat([named(name), Buffer.alloc(2)]));
    const info = replies.find(({ type, data }) => type === 3 && data.readUInt16BE(0) === 0)!;
    this.size = Number(info.data.readBigUInt64BE(2));
    this.flags = info.data.readUInt16BE(10);
  }

  /** Sends an option. @returns its replies @throws if the last is an error */
  async option(option: number, data = Buffer.alloc(0)): Promise<{ type: number; data: Buffer }[]> {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(option, 0);
    head.writeUInt32BE(data.length, 4);
    this.socket.write(Buffer.concat([optionMagic, head, data]));
    const replies: { type: number; data: Buffer }[] = [];
    for (;;) {
      const reply = await this.#bytes.take(20);
      const type = reply.readUInt32BE(12);
      const body = await this.#bytes.take(reply.readUInt32BE(16));
      if (type >= 0x80000000) throw new Error(`option ${option}: ${body.toString()}`);
      if (type === 1) return replies;
      replies.push({ type, data: body });
    }
  }

  async #receive(): Promise<void> {
    try {
      for (;;) await this.#receiveOne();
    } catch (error) {
      for (const { reject } of this.#waiting.values()) reject(error as Error);
      this.#waiting.clear();
    }
  }

  async #receiveOne(): Promise<void> {
    const magic = (await this.#bytes.take(4)).readUInt32BE(0);
    if (magic === 0x67446698) {
      const head = await this.#bytes.take(12);
      const cookie = Number(head.readBigUInt64BE(4));
      const waiting = this.#waiting.get(cookie)!;
      waiting.error = head.readUInt32BE(0);
      if (waiting.isRead && waiting.error === 0) {
        waiting.data = await this.#bytes.take(waiting.length);
      }
      this.#end(cookie);
      return;
    }
    const isExtended = magic === 0x6e8a278c;
    if (!isExtended && magic !== 0x668e33ef) throw new Error(`reply begins with ${magic}`);
    const head = await this.#bytes.take(isExtended ? 28 : 16);
    const cookie = Number(head.readBigUInt64BE(4));
    const length = isExtended ? Number(head.readBigUInt64BE(20)) : head.readUInt32BE(12);
    const waiting = this.#waiting.get(cookie)!;
    this.#takeChunk(waiting, head.readUInt16BE(2), await this.#bytes.take(length));
    if ((head.readUInt16BE(0) & 1) !== 0) this.#end(cookie);
  }

  #takeChunk(waiting: Waiting, type: number, data: Buffer): void {
    if (type === 1) waiting.data = data.subarray(8);
    if (type >= 0x8000) waiting.error = data.readUInt32BE(0);
    if (type !== 5 && type !== 6) return;
    const stretches: (readonly [number, number])[] = [];
    for (let at = type === 5 ? 4 : 8; at < data.length; at += type === 5 ? 8 : 16) {
      stretches.push(
        type === 5
          ? [data.readUInt32BE(at), data.readUInt32BE(at + 4)]
          : [Number(data.readBigUInt64BE(at)), Number(data.readBigUInt64BE(at + 8))],
      );
    }
    waiting.status.set(data.readUInt32BE(0), stretches);
  }

  #end(cookie: number): void {
    const { resolve, error, data, status } = this.#waiting.get(cookie)!;
    this.#waiting.delete(cookie);
    resolve({ error, data, status });
  }
}
