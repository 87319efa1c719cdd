/** Replies to requests, as bytes: simple, structured or with extended headers. */
import type { Stretch } from './metadata-context.js';
import type { HeaderStyle } from './negotiation.js';
import { Magic, ReplyType, replyFlagDone } from '../../nbd/protocol.js';

/** Any number of 64 bits, as its two halves. */
export interface Words {
  readonly high: number;
  readonly low: number;
}

/** Bytes in front of what a request has read, by the style of headers. */
export const readHeadBytes: Readonly<Record<HeaderStyle, number>> = {
  simple: 16,
  structured: 28,
  extended: 40,
};

/** One request, as far as its replies need it. */
export interface Answered {
  readonly style: HeaderStyle;
  /** What the client calls it by. */
  readonly cookie: Words;
  /** The guest offset in bytes, as the client gave it. */
  readonly place: Words;
}

const twoTo32 = 2 ** 32;

function writeWords(into: Buffer, { high, low }: Words, at: number): void {
  into.writeUInt32BE(high, at);
  into.writeUInt32BE(low, at + 4);
}

function writeUInt64(into: Buffer, value: number, at: number): void {
  writeWords(into, { high: Math.floor(value / twoTo32), low: value % twoTo32 }, at);
}

/** @returns bytes that the head of a chunk took */
function writeChunkHead(
  into: Buffer,
  { style, cookie, place }: Answered,
  {
    type,
    flags,
    length,
  }: { readonly type: number; readonly flags: number; readonly length: number },
): number {
  const isExtended = style === 'extended';
  into.writeUInt32BE(isExtended ? Magic.extendedReply : Magic.structuredReply, 0);
  into.writeUInt16BE(flags, 4);
  into.writeUInt16BE(type, 6);
  writeWords(into, cookie, 8);
  if (!isExtended) {
    into.writeUInt32BE(length, 16);
    return 20;
  }
  writeWords(into, place, 16);
  writeUInt64(into, length, 24);
  return 32;
}

function writeSimple(into: Buffer, cookie: Words, error: number): void {
  into.writeUInt32BE(Magic.simpleReply, 0);
  into.writeUInt32BE(error, 4);
  writeWords(into, cookie, 8);
}

/** Writes what comes before the bytes that a request has read. @param head of `readHeadBytes` bytes */
export function writeReadHead(head: Buffer, answered: Answered, length: number): void {
  const { style, cookie, place } = answered;
  if (style === 'simple') {
    writeSimple(head, cookie, 0);
    return;
  }
  const chunk = { type: ReplyType.offsetData, flags: replyFlagDone, length: 8 + length };
  writeWords(head, place, writeChunkHead(head, answered, chunk));
}

/** The reply that brings nothing: a request that was done, or failed. @param error of `NbdError`, or 0 */
export function plainReply(answered: Answered, error: number, why = ''): Buffer {
  const { style, cookie } = answered;
  if (style === 'simple') {
    const reply = Buffer.allocUnsafe(16);
    writeSimple(reply, cookie, error);
    return reply;
  }
  const words = Buffer.from(error === 0 ? '' : why.slice(0, 1000));
  const length = error === 0 ? 0 : 6 + words.length;
  const reply = Buffer.allocUnsafe((style === 'extended' ? 32 : 20) + length);
  const type = error === 0 ? ReplyType.none : ReplyType.error;
  const at = writeChunkHead(reply, answered, { type, flags: replyFlagDone, length });
  if (error !== 0) {
    reply.writeUInt32BE(error, at);
    reply.writeUInt16BE(words.length, at + 4);
    words.copy(reply, at + 6);
  }
  return reply;
}

/** The stretches of one metadata context. */
export function statusReply(
  answered: Answered,
  contextId: number,
  stretches: readonly Stretch[],
  isLast: boolean,
): Buffer {
  const isExtended = answered.style === 'extended';
  const each = isExtended ? 16 : 8;
  const length = (isExtended ? 8 : 4) + stretches.length * each;
  const reply = Buffer.allocUnsafe((isExtended ? 32 : 20) + length);
  const type = isExtended ? ReplyType.blockStatusExtended : ReplyType.blockStatus;
  const flags = isLast ? replyFlagDone : 0;
  let at = writeChunkHead(reply, answered, { type, flags, length });
  at = reply.writeUInt32BE(contextId, at);
  if (isExtended) at = reply.writeUInt32BE(stretches.length, at);
  for (const stretch of stretches) {
    if (isExtended) {
      writeUInt64(reply, stretch.length, at);
      writeUInt64(reply, stretch.state, at + 8);
    } else {
      reply.writeUInt32BE(stretch.length, at);
      reply.writeUInt32BE(stretch.state, at + 4);
    }
    at += each;
  }
  return reply;
}
