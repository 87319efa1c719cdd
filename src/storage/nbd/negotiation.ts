/** The handshake with a server, from the client's side. */
import {
  HandshakeFlag,
  Info,
  Option,
  OptionReply,
  initialMagic,
  mostPayloadBytes,
  optionMagic,
  optionReplyMagic,
} from '../../nbd/protocol.js';
import type { Link } from './link.js';
import type { NbdLocation } from './uri.js';

/** Longest reply to an option, and longest list of stretches, in bytes. */
export const mostReplyBytes = 4 * 1024 * 1024;
/** Bytes of a block that a server may demand at most (the protocol's bound). */
const mostBlockBytes = 64 * 1024;
const allocationContext = 'base:allocation';
const twoTo32 = 2 ** 32;

/** What the server says of the export. */
export interface ExportInfo {
  /** Bytes. */
  readonly size: number;
  /** Of `TransmissionFlag`. */
  readonly flags: number;
  /** Bytes that requests have to be a multiple of. */
  readonly blockBytes: number;
  /** Bytes that a request reads or writes at most. */
  readonly mostBytes: number;
  /** Id of `base:allocation`; undefined if the server does not know it. */
  readonly allocationId: number | undefined;
}

/** What was agreed on. */
export interface Agreed {
  readonly info: ExportInfo;
  readonly isStructured: boolean;
}

/** One reply to an option. */
interface OptionAnswer {
  readonly type: number;
  readonly data: Buffer;
}

/** Agrees on an export. @throws Error saying why that cannot be, in a few words */
export async function agree(link: Link, { exportName, tls }: NbdLocation): Promise<Agreed> {
  const greeting = await link.take(18);
  const isNewstyle =
    greeting.subarray(0, 8).equals(initialMagic) && greeting.subarray(8, 16).equals(optionMagic);
  const offered = greeting.readUInt16BE(16);
  if (!isNewstyle || (offered & HandshakeFlag.fixedNewstyle) === 0) {
    throw new Error('it is no NBD server, or an old one');
  }
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes));
  link.stream.write(flags);
  if (tls !== undefined) {
    await ask(link, Option.startTls, [], true);
    await link.secure();
  }
  const name = sized(exportName);
  const isStructured = (await ask(link, Option.structuredReply, [])) !== undefined;
  const one = Buffer.from([0, 0, 0, 1]);
  const query = [name, one, sized(allocationContext)];
  const contexts = isStructured ? await ask(link, Option.setMetaContext, query) : undefined;
  const context = contexts?.find(
    ({ type, data }) =>
      type === OptionReply.metaContext && data.toString('utf8', 4) === allocationContext,
  );
  const wanted = Buffer.from([0, 1, 0, Info.blockSize]);
  const answers = await ask(link, Option.go, [name, wanted], true);
  const told = (info: number, length: number): Buffer | undefined =>
    answers.find(
      ({ type, data }) =>
        type === OptionReply.info && data.length === length && data.readUInt16BE(0) === info,
    )?.data;
  const facts = told(Info.export, 12);
  if (facts === undefined) throw new Error('the server says nothing of the export');
  const size = facts.readUInt32BE(2) * twoTo32 + facts.readUInt32BE(6);
  if (!Number.isSafeInteger(size)) throw new Error('the export is too large');
  const sizes = told(Info.blockSize, 14);
  const most = sizes?.readUInt32BE(10) ?? mostPayloadBytes;
  const blockBytes = Math.max(1, sizes?.readUInt32BE(2) ?? 1);
  const isBlock = Number.isInteger(Math.log2(blockBytes)) && blockBytes <= mostBlockBytes;
  if (!isBlock) throw new Error('the server demands blocks of a size that there is not');
  const wholeBlocks = (bytes: number): number => bytes - (bytes % blockBytes);
  return {
    isStructured,
    info: {
      size,
      flags: facts.readUInt16BE(10),
      blockBytes,
      mostBytes: Math.max(512, blockBytes, wholeBlocks(Math.min(most, mostPayloadBytes))),
      allocationId: context?.data.readUInt32BE(0),
    },
  };
}

/** A text with its length in front. */
function sized(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

async function ask(
  link: Link,
  option: number,
  parts: readonly Buffer[],
  isNeeded: true,
): Promise<readonly OptionAnswer[]>;
async function ask(
  link: Link,
  option: number,
  parts: readonly Buffer[],
): Promise<readonly OptionAnswer[] | undefined>;
/** @returns undefined if the server refuses an option that is not needed */
async function ask(
  link: Link,
  option: number,
  parts: readonly Buffer[],
  isNeeded = false,
): Promise<readonly OptionAnswer[] | undefined> {
  const data = Buffer.concat(parts);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(option, 0);
  head.writeUInt32BE(data.length, 4);
  link.stream.write(Buffer.concat([optionMagic, head, data]));
  const answers: OptionAnswer[] = [];
  for (let count = 0; count < 1000; count++) {
    const reply = await link.take(20);
    const length = reply.readUInt32BE(16);
    const isReply =
      reply.subarray(0, 8).equals(optionReplyMagic) && reply.readUInt32BE(8) === option;
    if (!isReply || length > mostReplyBytes)
      throw new Error('the server answers what nobody knows');
    const type = reply.readUInt32BE(12);
    const body = await link.take(length);
    if (type === OptionReply.acknowledge) return answers;
    if (type >= OptionReply.errorUnsupported) {
      if (!isNeeded) return undefined;
      throw new Error(refusalOf(type, body.toString()));
    }
    answers.push({ type, data: body });
  }
  throw new Error('the server answers without end');
}

function refusalOf(type: number, text: string): string {
  const known: Readonly<Record<number, string>> = {
    [OptionReply.errorPolicy]: 'the server does not allow it',
    [OptionReply.errorTlsRequired]: 'the server demands TLS (nbds://)',
    [OptionReply.errorUnknown]: 'the server has no export of that name',
    [OptionReply.errorShutdown]: 'the server is shutting down',
    [OptionReply.errorBlockSizeRequired]: 'the server demands blocks of another size',
  };
  const why = known[type] ?? 'the server refuses it';
  return text === '' || type === OptionReply.errorUnknown ? why : `${why}: ${text}`;
}
