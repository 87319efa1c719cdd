/** A connection to an export of an NBD server, from the client's side: any number of requests at a time. */
import { Command, Magic, ReplyType, replyFlagDone } from '../../nbd/protocol.js';
import { Link } from './link.js';
import { type Agreed, type ExportInfo, agree, mostReplyBytes } from './negotiation.js';
import type { NbdLocation } from './uri.js';

/** Milliseconds in which a server has to be there, and to agree. */
const handshakeMs = 10_000;
const twoTo32 = 2 ** 32;

/** An error that the server has answered a request with. */
export class ServerError extends Error {
  /** @param error of `NbdError`, or another one */
  constructor(
    readonly error: number,
    message: string,
  ) {
    super(message);
  }
}

/** A server that answers as none should. */
export class ProtocolError extends Error {}

/** One request. */
export interface ClientRequest {
  readonly command: number;
  readonly flags?: number;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** What it writes. */
  readonly data?: Uint8Array;
  /** What it reads into. */
  readonly into?: Uint8Array;
}

/** A stretch of the export, and its state. */
export type Stretch = readonly [length: number, state: number];

interface Waiting extends ClientRequest {
  readonly resolve: (stretches: readonly Stretch[]) => void;
  readonly reject: (error: Error) => void;
  stretches: Stretch[];
  /** Bytes that have been read. */
  done: number;
  failure: Error | undefined;
}

/** See the file's comment. */
export class NbdClient {
  readonly info: ExportInfo;
  readonly #link: Link;
  readonly #isStructured: boolean;
  readonly #waiting = new Map<number, Waiting>();
  #lastCookie = 0;
  #failure: Error | undefined;
  #isDue = false;

  private constructor(link: Link, { info, isStructured }: Agreed) {
    this.#link = link;
    this.info = info;
    this.#isStructured = isStructured;
    link.onEnd = (error) => {
      this.#fail(error);
    };
    this.#expectReply();
  }

  /** Connects to an export. @throws Error saying why that cannot be, in a few words */
  static async connect(location: NbdLocation, signal?: AbortSignal): Promise<NbdClient> {
    const link = new Link(location);
    const abort = (): void => {
      link.close(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      link.close(new Error('the server does not answer'));
    }, handshakeMs);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      signal?.throwIfAborted();
      const agreed = await agree(link, location);
      return new NbdClient(link, agreed);
    } catch (error) {
      link.close(error as Error);
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Whether it can take requests. */
  get isOpen(): boolean {
    return this.#failure === undefined;
  }

  /** Sends a request; resolves with the stretches that block status tells of. @throws ServerError */
  request(request: ClientRequest): Promise<readonly Stretch[]> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      const cookie = this.#nextCookie();
      const { command, flags = 0, offset, length, data } = request;
      const head = Buffer.allocUnsafe(28);
      head.writeUInt32BE(Magic.request, 0);
      head.writeUInt16BE(flags, 4);
      head.writeUInt16BE(command, 6);
      head.writeUInt32BE(0, 8);
      head.writeUInt32BE(cookie, 12);
      head.writeUInt32BE(Math.floor(offset / twoTo32), 16);
      head.writeUInt32BE(offset % twoTo32, 20);
      head.writeUInt32BE(length, 24);
      const more = { stretches: [], done: 0, failure: undefined };
      this.#waiting.set(cookie, { ...request, ...more, resolve, reject });
      this.#send(head);
      if (data !== undefined) this.#send(data);
    });
  }

  /** Says goodbye. */
  close(): void {
    if (this.#failure !== undefined) return;
    const head = Buffer.alloc(28);
    head.writeUInt32BE(Magic.request, 0);
    head.writeUInt16BE(Command.disconnect, 6);
    this.#link.stream.end(head);
    this.#failure = new Error('the connection is closed');
  }

  #nextCookie(): number {
    do this.#lastCookie = (this.#lastCookie + 1) % twoTo32;
    while (this.#waiting.has(this.#lastCookie));
    return this.#lastCookie;
  }

  /** What is sent in one turn goes in one system call. */
  #send(bytes: Uint8Array): void {
    const { stream } = this.#link;
    if (!this.#isDue) {
      this.#isDue = true;
      stream.cork();
      process.nextTick(() => {
        this.#isDue = false;
        stream.uncork();
      });
    }
    stream.write(bytes);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }

  #expectReply(): void {
    const { reader } = this.#link;
    reader.expectHead(16, (head) => {
      const magic = head.readUInt32BE(0);
      const waiting = this.#waiting.get(head.readUInt32BE(12));
      if (waiting === undefined || head.readUInt32BE(8) !== 0) {
        this.#break('the server answers what was not asked');
      } else if (magic === Magic.simpleReply) {
        this.#takeSimple(waiting, head.readUInt32BE(12), head.readUInt32BE(4));
      } else if (magic === Magic.structuredReply && this.#isStructured) {
        const chunk = {
          waiting,
          cookie: head.readUInt32BE(12),
          isLast: (head.readUInt16BE(4) & replyFlagDone) !== 0,
          type: head.readUInt16BE(6),
        };
        reader.expectHead(4, (length) => {
          this.#takeChunk(chunk, length.readUInt32BE(0));
        });
      } else this.#break('a reply does not begin as one');
    });
  }

  #takeSimple(waiting: Waiting, cookie: number, error: number): void {
    const { into } = waiting;
    if (error !== 0) waiting.failure = new ServerError(error, '');
    if (into === undefined || error !== 0) {
      this.#end(cookie, waiting);
      return;
    }
    if (this.#isStructured) {
      this.#break('the server answers a read otherwise than was agreed');
      return;
    }
    this.#link.reader.expectPayload(into, () => {
      waiting.done = into.length;
      this.#end(cookie, waiting);
    });
  }

  #takeChunk(chunk: Chunk, length: number): void {
    const { reader } = this.#link;
    const { waiting, type } = chunk;
    if (type === ReplyType.offsetData) {
      this.#takeData(chunk, length);
      return;
    }
    if (length > mostReplyBytes) {
      this.#break('a reply is longer than any should be');
      return;
    }
    const bytes = new Uint8Array(length);
    reader.expectPayload(bytes, () => {
      const body = Buffer.from(bytes.buffer);
      const problem =
        type === ReplyType.none
          ? length > 0
            ? 'a reply is too long'
            : undefined
          : type === ReplyType.offsetHole
            ? takeHole(waiting, body)
            : type === ReplyType.blockStatus
              ? this.#takeStretches(waiting, body)
              : takeError(waiting, type, body);
      if (problem !== undefined) this.#break(problem);
      else this.#endChunk(chunk);
    });
  }

  #takeData(chunk: Chunk, length: number): void {
    const { reader } = this.#link;
    if (length < 9) {
      this.#break('a reply is too short');
      return;
    }
    reader.expectHead(8, (head) => {
      const offset = head.readUInt32BE(0) * twoTo32 + head.readUInt32BE(4);
      const into = partOf(chunk.waiting, offset, length - 8);
      if (into === undefined) {
        this.#break('the server sends other bytes than were asked for');
        return;
      }
      reader.expectPayload(into, () => {
        chunk.waiting.done += into.length;
        this.#endChunk(chunk);
      });
    });
  }

  #takeStretches(waiting: Waiting, body: Buffer): string | undefined {
    if (waiting.command !== Command.blockStatus || body.length < 12 || body.length % 8 !== 4) {
      return 'a list of stretches is not as long as it should be';
    }
    if (body.readUInt32BE(0) !== this.info.allocationId) return undefined;
    for (let at = 4; at < body.length; at += 8) {
      const length = body.readUInt32BE(at);
      if (length === 0) return 'a stretch has no length';
      waiting.stretches.push([length, body.readUInt32BE(at + 4)]);
    }
    return undefined;
  }

  #endChunk({ cookie, waiting, isLast }: Chunk): void {
    if (isLast) this.#end(cookie, waiting);
    else this.#expectReply();
  }

  #end(cookie: number, waiting: Waiting): void {
    this.#waiting.delete(cookie);
    const isShort = waiting.into !== undefined && waiting.done !== waiting.into.length;
    if (waiting.failure !== undefined) waiting.reject(waiting.failure);
    else if (isShort) waiting.reject(new Error('the server did not send all that was asked for'));
    else waiting.resolve(waiting.stretches);
    this.#expectReply();
  }

  #break(why: string): void {
    this.#link.close(new ProtocolError(why));
  }
}

interface Chunk {
  readonly waiting: Waiting;
  readonly cookie: number;
  readonly isLast: boolean;
  readonly type: number;
}

/** The memory that bytes of the export belong into; undefined if they were not asked for. */
function partOf({ into, offset }: Waiting, at: number, length: number): Uint8Array | undefined {
  const start = at - offset;
  if (into === undefined || start < 0 || start + length > into.length) return undefined;
  return into.subarray(start, start + length);
}

/** @returns what is wrong, if anything */
function takeHole(waiting: Waiting, body: Buffer): string | undefined {
  if (body.length !== 12) return 'a hole is not told of as it should be';
  const offset = body.readUInt32BE(0) * twoTo32 + body.readUInt32BE(4);
  const into = partOf(waiting, offset, body.readUInt32BE(8));
  if (into === undefined) return 'the server sends other bytes than were asked for';
  into.fill(0);
  waiting.done += into.length;
  return undefined;
}

/** @returns what is wrong, if anything */
function takeError(waiting: Waiting, type: number, body: Buffer): string | undefined {
  const isError = (type & 0x8000) !== 0;
  if (!isError || body.length < 6 || body.readUInt32BE(0) === 0) {
    return 'the server answers what nobody knows';
  }
  const length = Math.min(body.readUInt16BE(4), body.length - 6);
  const text = body.toString('utf8', 6, 6 + length);
  waiting.failure ??= new ServerError(body.readUInt32BE(0), text);
  return undefined;
}
