/**
 * The transmission phase of a connection: requests are taken as they come, run side by side on the
 * connection's queue of the image, and are answered as they end.
 */
import { CowherdError } from '../../errors.js';
import type { Image, RequestTarget } from '../../image/api/image.js';
import type { FrameReader } from '../../nbd/frame-reader.js';
import { stretchesOf } from './metadata-context.js';
import type { Agreement } from './negotiation.js';
import type { Payload, PayloadPool } from './payload-pool.js';
import { Command, CommandFlag, Magic, NbdError, mostPayloadBytes } from '../../nbd/protocol.js';
import {
  type Answered,
  plainReply,
  readHeadBytes,
  statusReply,
  type Words,
  writeReadHead,
} from './reply.js';
import type { ReplyWriter } from './reply-writer.js';

/** Requests of a connection under way at a time; further ones wait in the socket. */
const mostRequests = 256;
/** Bytes of payloads under way at a time, beside the first request. */
const mostBytes = 64 * 1024 * 1024;
/** Stretches of one context in one reply. */
const mostStretches = 16 * 1024;
/** Bytes that are read at a time to be in the host's cache. */
const cachedBytes = 1024 * 1024;
const twoTo32 = 2 ** 32;

/** What a client may do to an export. */
export interface ServedExport {
  readonly image: Image;
  readonly readOnly: boolean;
}

/** What a transmission works with. */
export interface TransmissionParties<Export extends ServedExport> {
  readonly agreement: Agreement<Export>;
  /** The connection's queue of the image. */
  readonly queue: RequestTarget;
  readonly reader: FrameReader;
  readonly replies: ReplyWriter;
  readonly payloads: PayloadPool;
  /** The connection has to be closed. @param why in a few words; undefined if the client wanted it */
  ended(why: string | undefined): void;
  /** A reply has gone: the reader may go on. */
  wantsMore(): void;
}

/** A request that was understood. */
interface Request extends Answered {
  readonly command: number;
  readonly flags: number;
  /** Guest offset in bytes; beyond 2^53 only about. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** What a request is answered with. */
interface Answer {
  readonly parts: readonly Uint8Array[];
  /** Called when all of it has gone. */
  readonly release?: () => void;
}

/** A request that is answered by an error, and changes nothing. */
class Refused extends Error {
  constructor(
    readonly error: number,
    why: string,
  ) {
    super(why);
  }
}

/** See the file's comment. */
export class Transmission<Export extends ServedExport> {
  readonly #parties: TransmissionParties<Export>;
  readonly #headBytes: number;
  /** Requests that were taken, and whose replies have not gone; and the bytes that they bring and read. */
  #requests = 0;
  #bytes = 0;
  /** Requests that have not ended. */
  #running = 0;
  #onIdle: (() => void) | undefined;

  constructor(parties: TransmissionParties<Export>) {
    this.#parties = parties;
    this.#headBytes = parties.agreement.style === 'extended' ? 32 : 28;
  }

  begin(): void {
    this.#parties.reader.expectHead(this.#headBytes, (head) => {
      this.#takeHead(head);
    });
  }

  /** Whether as much is under way as may be. */
  get isFull(): boolean {
    return this.#requests >= mostRequests || (this.#requests > 0 && this.#bytes >= mostBytes);
  }

  /** Resolves when all requests have ended; their replies may still be on their way. */
  async idle(): Promise<void> {
    if (this.#running === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #takeHead(head: Buffer): void {
    const { reader, agreement } = this.#parties;
    const isExtended = agreement.style === 'extended';
    if (head.readUInt32BE(0) !== (isExtended ? Magic.extendedRequest : Magic.request)) {
      this.#parties.ended('a request does not begin as one');
      return;
    }
    const words = (at: number): Words => ({
      high: head.readUInt32BE(at),
      low: head.readUInt32BE(at + 4),
    });
    const place = words(16);
    const request: Request = {
      style: agreement.style,
      flags: head.readUInt16BE(4),
      command: head.readUInt16BE(6),
      cookie: words(8),
      place,
      offset: place.high * twoTo32 + place.low,
      length: isExtended
        ? head.readUInt32BE(24) * twoTo32 + head.readUInt32BE(28)
        : head.readUInt32BE(24),
    };
    if (request.command === Command.disconnect) {
      this.#parties.ended(undefined);
      return;
    }
    // With extended headers a write should say by its flag that it brings something; QEMU's does not.
    const hasPayload =
      request.command === Command.write ||
      (isExtended && (request.flags & CommandFlag.payloadLength) !== 0);
    if (!hasPayload) {
      this.#start(request, undefined);
      this.begin();
      return;
    }
    const { length } = request;
    if (length > mostPayloadBytes) {
      this.#parties.ended('a request brings more than is allowed');
      return;
    }
    const isWanted = request.command === Command.write || request.command === Command.blockStatus;
    if (length === 0 || !isWanted) {
      reader.skip(length, () => {
        this.#start(request, undefined);
        this.begin();
      });
      return;
    }
    const payload = this.#parties.payloads.take(length);
    reader.expectPayload(payload.bytes, () => {
      this.#start(request, payload);
      this.begin();
    });
  }

  #start(request: Request, payload: Payload | undefined): void {
    const bytes = request.command === Command.read ? request.length : (payload?.bytes.length ?? 0);
    this.#requests += 1;
    this.#running += 1;
    this.#bytes += bytes;
    if (this.isFull) this.#parties.reader.pause();
    const answer = ({ parts, release }: Answer): void => {
      payload?.release();
      const last = parts.length - 1;
      parts.forEach((part, index) => {
        this.#parties.replies.send(
          part,
          index < last
            ? undefined
            : () => {
                release?.();
                this.#requests -= 1;
                this.#bytes -= bytes;
                this.#parties.wantsMore();
              },
        );
      });
      this.#running -= 1;
      if (this.#running === 0) this.#onIdle?.();
    };
    this.#run(request, payload).then(answer, (error: unknown) => {
      const { number, why } = failureOf(error);
      answer({ parts: [plainReply(request, number, why)] });
    });
  }

  #run(request: Request, payload: Payload | undefined): Promise<Answer> {
    const refusal = this.#refusal(request);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (request.command === Command.read) return this.#read(request);
    if (request.command === Command.blockStatus) return this.#tellStatus(request, payload?.bytes);
    return this.#change(request, payload);
  }

  /** Why something may not be asked for, if it may not. */
  #refusal({ command, flags, offset, length, style }: Request): Refused | undefined {
    const { image, readOnly } = this.#parties.agreement.export;
    const allowed = allowedFlags[command];
    if (allowed === undefined) return new Refused(NbdError.EINVAL, 'there is no such request');
    const isStatus = command === Command.blockStatus;
    const mayBring = style === 'extended' && (command === Command.write || isStatus);
    const known = allowed | (mayBring ? CommandFlag.payloadLength : 0);
    if ((flags & ~known) !== 0) return new Refused(NbdError.EINVAL, 'a flag is not known');
    const changes = isChange(command);
    if (changes && readOnly) return new Refused(NbdError.EPERM, 'the export is read-only');
    if (command === Command.flush) return undefined;
    const isBeyond = isStatus
      ? offset >= image.size
      : offset > image.size || length > image.size - offset;
    if (isBeyond) {
      const error = changes ? NbdError.ENOSPC : NbdError.EINVAL;
      return new Refused(error, 'the range lies beyond the end of the export');
    }
    if (command === Command.read && length > mostPayloadBytes) {
      const error = style === 'extended' ? NbdError.EOVERFLOW : NbdError.EINVAL;
      return new Refused(error, 'more is asked for than is allowed');
    }
    return undefined;
  }

  async #read(request: Request): Promise<Answer> {
    const { queue, payloads } = this.#parties;
    const { offset, length, style } = request;
    if (length === 0) return { parts: [plainReply(request, 0)] };
    const payload = payloads.take(length);
    try {
      await queue.read(payload.bytes, offset);
    } catch (error) {
      payload.release();
      throw error;
    }
    const headBytes = readHeadBytes[style];
    const reply = payload.withHead(headBytes).subarray(0, headBytes + length);
    writeReadHead(reply, request, length);
    return {
      parts: [reply],
      release: () => {
        payload.release();
      },
    };
  }

  async #change(request: Request, payload: Payload | undefined): Promise<Answer> {
    const { queue } = this.#parties;
    const { command, flags, offset, length } = request;
    switch (command) {
      case Command.write:
        if (payload !== undefined) await queue.write(payload.bytes, offset);
        break;
      case Command.trim:
        await queue.discard(offset, length);
        break;
      case Command.writeZeroes:
        await this.#writeZeroes(request);
        break;
      case Command.cache:
        await this.#cache(offset, length);
        break;
    }
    const isForced = isChange(command) && (flags & CommandFlag.fua) !== 0;
    if (command === Command.flush || isForced) await queue.flush();
    return { parts: [plainReply(request, 0)] };
  }

  async #writeZeroes({ flags, offset, length }: Request): Promise<void> {
    const { queue, agreement } = this.#parties;
    const isFast = agreement.export.image.clusterSize !== undefined;
    if ((flags & CommandFlag.fastZero) !== 0 && !isFast) {
      throw new Refused(NbdError.ENOTSUP, 'that may be no faster than writing zeroes');
    }
    await queue.writeZeroes(offset, length, { unmap: (flags & CommandFlag.noHole) === 0 });
  }

  /** Reads a range, so that the host has it in its cache. */
  async #cache(offset: number, length: number): Promise<void> {
    const { queue, payloads } = this.#parties;
    const payload = payloads.take(Math.max(1, Math.min(length, cachedBytes)));
    try {
      for (let done = 0; done < length; done += cachedBytes) {
        const part = payload.bytes.subarray(0, Math.min(cachedBytes, length - done));
        await queue.read(part, offset + done);
      }
    } finally {
      payload.release();
    }
  }

  async #tellStatus(request: Request, payload: Uint8Array | undefined): Promise<Answer> {
    const { agreement } = this.#parties;
    const { image } = agreement.export;
    const { offset } = request;
    let { length } = request;
    let { contexts } = agreement;
    if (payload !== undefined) {
      const wanted = contextFilter(payload);
      length = wanted.length;
      contexts = contexts.filter(({ id }) => wanted.ids.includes(id));
      if (contexts.length !== wanted.ids.length) {
        throw new Refused(NbdError.EINVAL, 'a context was not agreed on');
      }
    }
    if (contexts.length === 0 || length === 0) {
      throw new Refused(NbdError.EINVAL, 'nothing is asked for that was agreed on');
    }
    const most = (request.flags & CommandFlag.requestOne) !== 0 ? 1 : mostStretches;
    const range = { offset, length: Math.min(length, image.size - offset) };
    const found = await stretchesOf(image, contexts, range, most);
    const last = contexts.length - 1;
    return {
      parts: contexts.map(({ id }, index) =>
        statusReply(request, id, found[index], index === last),
      ),
    };
  }
}

/** Flags that requests may have, beside that of a payload. */
const allowedFlags: Readonly<Record<number, number | undefined>> = {
  [Command.read]: CommandFlag.dontFragment | CommandFlag.fua,
  [Command.write]: CommandFlag.fua,
  [Command.flush]: CommandFlag.fua,
  [Command.trim]: CommandFlag.fua,
  [Command.cache]: CommandFlag.fua,
  [Command.writeZeroes]: CommandFlag.fua | CommandFlag.noHole | CommandFlag.fastZero,
  [Command.blockStatus]: CommandFlag.requestOne | CommandFlag.fua,
};

function isChange(command: number): boolean {
  return command === Command.write || command === Command.trim || command === Command.writeZeroes;
}

/** What a request for block status brings: how far, and for which contexts. */
function contextFilter(payload: Uint8Array): { length: number; ids: readonly number[] } {
  const view = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
  if (view.length < 12 || view.length % 4 !== 0) {
    throw new Refused(NbdError.EINVAL, 'the list of contexts is not as long as it says');
  }
  const ids: number[] = [];
  for (let at = 8; at < view.length; at += 4) ids.push(view.readUInt32BE(at));
  return { length: view.readUInt32BE(0) * twoTo32 + view.readUInt32BE(4), ids };
}

/** What a failure is to a client. */
function failureOf(error: unknown): { readonly number: number; readonly why: string } {
  if (error instanceof Refused) return { number: error.error, why: error.message };
  if (!(error instanceof CowherdError)) return { number: NbdError.EIO, why: 'a request failed' };
  const numbers: Partial<Record<CowherdError['code'], number>> = {
    ERR_COWHERD_NO_SPACE: NbdError.ENOSPC,
    ERR_COWHERD_NO_MEMORY: NbdError.ENOMEM,
    ERR_COWHERD_READ_ONLY: NbdError.EPERM,
    ERR_COWHERD_OUT_OF_RANGE: NbdError.EINVAL,
    ERR_COWHERD_UNSUPPORTED: NbdError.ENOTSUP,
    ERR_COWHERD_CLOSED: NbdError.ESHUTDOWN,
  };
  return { number: numbers[error.code] ?? NbdError.EIO, why: error.message };
}
