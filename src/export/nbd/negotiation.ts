/**
 * The handshake of a connection, from the server's side: fixed newstyle, one option at a time. Nothing in
 * it waits for a disk, and nothing that a client sends takes more memory than the longest option.
 */
import type { FrameReader } from '../../nbd/frame-reader.js';
import { type MetadataContext, matchingContexts } from './metadata-context.js';
import {
  HandshakeFlag,
  Info,
  Option,
  OptionReply,
  TransmissionFlag,
  initialMagic,
  mostPayloadBytes,
  mostStringBytes,
  optionMagic,
  optionReplyMagic,
  preferredBlockBytes,
} from '../../nbd/protocol.js';

/** Longest option that is looked at, in bytes: a name, and queries of a few hundred contexts. */
const mostOptionBytes = 64 * 1024;
/** Options of one client: who goes on has lost its way. */
const mostOptions = 1000;

/** How requests and replies look. */
export type HeaderStyle = 'simple' | 'structured' | 'extended';

/** What a client is told of an export. */
export interface ExportFacts {
  readonly name: string;
  readonly description: string | undefined;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly contexts: readonly MetadataContext[];
}

/** What was agreed on. */
export interface Agreement<Export> {
  readonly export: Export;
  readonly style: HeaderStyle;
  readonly contexts: readonly MetadataContext[];
}

/** Who a handshake is for, and what comes of it. */
export interface NegotiationParties<Export extends ExportFacts> {
  /** In the order in which they are listed; the first goes by the empty name too. */
  readonly exports: readonly Export[];
  readonly reader: FrameReader;
  send(bytes: Uint8Array): void;
  /**
   * Secures the connection, after what was sent; calls `secured` then. Undefined without TLS. With it, nothing
   * else goes before.
   */
  readonly startTls: (() => void) | undefined;
  /** The transmission phase begins. */
  agreed(agreement: Agreement<Export>): void;
  /** The connection has to be closed. @param why in a few words; undefined if the client wanted it */
  ended(why: string | undefined): void;
}

/** See the file's comment. */
export class Negotiation<Export extends ExportFacts> {
  readonly #parties: NegotiationParties<Export>;
  #isFixed = false;
  #sendsZeroes = true;
  #style: HeaderStyle = 'simple';
  #contexts: { readonly export: Export; readonly chosen: readonly MetadataContext[] } | undefined;
  #options = 0;
  #isSecured = false;

  constructor(parties: NegotiationParties<Export>) {
    this.#parties = parties;
  }

  /** Greets the client. */
  begin(): void {
    const flags = Buffer.alloc(2);
    flags.writeUInt16BE(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
    this.#parties.send(Buffer.concat([initialMagic, optionMagic, flags]));
    this.#parties.reader.expectHead(4, (head) => {
      const chosen = head.readUInt32BE();
      if ((chosen & ~(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes)) !== 0) {
        this.#parties.ended('the client has flags that nobody knows');
        return;
      }
      this.#isFixed = (chosen & HandshakeFlag.fixedNewstyle) !== 0;
      this.#sendsZeroes = (chosen & HandshakeFlag.noZeroes) === 0;
      this.#expectOption();
    });
  }

  /** The connection is secured: what was agreed on before counts for nothing. */
  secured(): void {
    this.#isSecured = true;
    this.#style = 'simple';
    this.#contexts = undefined;
    this.#expectOption();
  }

  #expectOption(): void {
    const { reader } = this.#parties;
    reader.expectHead(16, (head) => {
      if (!head.subarray(0, 8).equals(optionMagic)) {
        this.#parties.ended('an option does not begin as one');
        return;
      }
      this.#options += 1;
      const option = head.readUInt32BE(8);
      const length = head.readUInt32BE(12);
      if (this.#options > mostOptions || length > mostPayloadBytes) {
        this.#parties.ended('the client asks for too much');
      } else if (length > mostOptionBytes) {
        reader.skip(length, () => {
          this.#refuse(option, OptionReply.errorTooBig, 'the option is too long');
          this.#expectOption();
        });
      } else {
        reader.expectHead(length, (data) => {
          if (this.#take(option, Buffer.from(data))) this.#expectOption();
        });
      }
    });
  }

  /** @returns whether another option may follow */
  #take(option: number, data: Buffer): boolean {
    const { startTls } = this.#parties;
    const isHeldBack = startTls !== undefined && !this.#isSecured;
    if (option === Option.exportName) {
      if (!isHeldBack) return this.#takeExportName(data);
      this.#parties.ended('the client does without TLS');
      return false;
    }
    if (!this.#isFixed) {
      this.#parties.ended('the client does not know of options');
      return false;
    }
    const mayGoBefore = option === Option.startTls || option === Option.abort;
    if (isHeldBack && !mayGoBefore) {
      this.#refuse(option, OptionReply.errorTlsRequired, 'TLS is required');
      return true;
    }
    switch (option) {
      case Option.startTls:
        return this.#takeStartTls(data);
      case Option.abort:
        this.#acknowledge(option);
        this.#parties.ended(undefined);
        return false;
      case Option.list:
        this.#takeList(data);
        return true;
      case Option.info:
      case Option.go:
        return this.#takeInfo(option, data);
      case Option.structuredReply:
      case Option.extendedHeaders:
        this.#takeStyle(option, data);
        return true;
      case Option.listMetaContext:
      case Option.setMetaContext:
        this.#takeContexts(option, data);
        return true;
      default:
        this.#refuse(option, OptionReply.errorUnsupported, 'this option is not supported');
        return true;
    }
  }

  #takeStartTls(data: Buffer): boolean {
    const { startTls, reader } = this.#parties;
    if (startTls === undefined) {
      this.#refuse(Option.startTls, OptionReply.errorUnsupported, 'there is no TLS here');
      return true;
    }
    if (data.length > 0 || this.#isSecured) {
      this.#refuse(Option.startTls, OptionReply.errorInvalid, 'that cannot be asked for here');
      return true;
    }
    // What came in the clear must not be taken for what comes secured.
    if (!reader.isEmpty) {
      this.#parties.ended('the client goes on before TLS has begun');
      return false;
    }
    this.#acknowledge(Option.startTls);
    startTls();
    return false;
  }

  #takeExportName(data: Buffer): boolean {
    const found = data.length <= mostStringBytes ? this.#find(data.toString()) : undefined;
    if (found === undefined) {
      this.#parties.ended('the client asks for an export that there is not');
      return false;
    }
    const reply = Buffer.alloc(10 + (this.#sendsZeroes ? 124 : 0));
    reply.writeBigUInt64BE(BigInt(found.size));
    reply.writeUInt16BE(transmissionFlags(found, this.#style), 8);
    this.#parties.send(reply);
    this.#agree(found);
    return false;
  }

  #takeList(data: Buffer): void {
    if (data.length > 0) {
      this.#refuse(Option.list, OptionReply.errorInvalid, 'the option takes no data');
      return;
    }
    for (const each of this.#parties.exports) {
      const name = Buffer.from(each.name);
      const reply = Buffer.alloc(4 + name.length);
      reply.writeUInt32BE(name.length);
      name.copy(reply, 4);
      this.#reply(
        Option.list,
        OptionReply.server,
        Buffer.concat([reply, Buffer.from(each.description ?? '')]),
      );
    }
    this.#acknowledge(Option.list);
  }

  #takeInfo(option: number, data: Buffer): boolean {
    const nameLength = data.length >= 6 ? data.readUInt32BE() : Infinity;
    const count = nameLength <= data.length - 6 ? data.readUInt16BE(4 + nameLength) : Infinity;
    if (nameLength > mostStringBytes || data.length !== 6 + nameLength + 2 * count) {
      this.#refuse(option, OptionReply.errorInvalid, 'the option is not as long as it says');
      return true;
    }
    const found = this.#find(data.toString('utf8', 4, 4 + nameLength));
    if (found === undefined) {
      this.#refuse(option, OptionReply.errorUnknown, 'there is no export of that name');
      return true;
    }
    const wanted = new Set<number>();
    for (let index = 0; index < count; index++) {
      wanted.add(data.readUInt16BE(6 + nameLength + 2 * index));
    }
    this.#tell(option, found, wanted);
    this.#acknowledge(option);
    if (option === Option.info) return true;
    this.#agree(found);
    return false;
  }

  #tell(option: number, found: Export, wanted: ReadonlySet<number>): void {
    const facts = Buffer.alloc(12);
    facts.writeUInt16BE(Info.export);
    facts.writeBigUInt64BE(BigInt(found.size), 2);
    facts.writeUInt16BE(transmissionFlags(found, this.#style), 10);
    this.#reply(option, OptionReply.info, facts);
    const text = (info: number, value: string): void => {
      const kind = Buffer.alloc(2);
      kind.writeUInt16BE(info);
      this.#reply(option, OptionReply.info, Buffer.concat([kind, Buffer.from(value)]));
    };
    if (wanted.has(Info.name)) text(Info.name, found.name);
    if (wanted.has(Info.description) && found.description !== undefined) {
      text(Info.description, found.description);
    }
    const sizes = Buffer.alloc(14);
    sizes.writeUInt16BE(Info.blockSize);
    sizes.writeUInt32BE(1, 2);
    sizes.writeUInt32BE(preferredBlockBytes, 6);
    sizes.writeUInt32BE(mostPayloadBytes, 10);
    this.#reply(option, OptionReply.info, sizes);
  }

  #takeStyle(option: number, data: Buffer): void {
    const wanted = option === Option.extendedHeaders ? 'extended' : 'structured';
    if (data.length > 0) {
      this.#refuse(option, OptionReply.errorInvalid, 'the option takes no data');
    } else if (this.#style === wanted) {
      this.#refuse(option, OptionReply.errorInvalid, 'that is agreed on already');
    } else if (this.#style === 'extended') {
      const reply = OptionReply.errorExtendedHeadersRequired;
      this.#refuse(option, reply, 'extended headers are agreed on already');
    } else {
      this.#style = wanted;
      this.#acknowledge(option);
    }
  }

  #takeContexts(option: number, data: Buffer): void {
    const isList = option === Option.listMetaContext;
    if (this.#style === 'simple') {
      const why = 'replies have to be structured for that';
      this.#refuse(option, OptionReply.errorInvalid, why);
      return;
    }
    const strings = stringsOf(data);
    if (strings === undefined) {
      this.#refuse(option, OptionReply.errorInvalid, 'the option is not as long as it says');
      return;
    }
    const [name, ...queries] = strings;
    if (!isList) this.#contexts = undefined;
    const found = this.#find(name);
    if (found === undefined) {
      this.#refuse(option, OptionReply.errorUnknown, 'there is no export of that name');
      return;
    }
    const matches = queries.flatMap((query) => matchingContexts(found.contexts, query, isList));
    const isAll = isList && queries.length === 0;
    const chosen = found.contexts.filter((each) => isAll || matches.includes(each));
    for (const { id, name: context } of chosen) {
      const head = Buffer.alloc(4);
      head.writeUInt32BE(isList ? 0 : id);
      this.#reply(option, OptionReply.metaContext, Buffer.concat([head, Buffer.from(context)]));
    }
    if (!isList) this.#contexts = { export: found, chosen };
    this.#acknowledge(option);
  }

  #agree(found: Export): void {
    const contexts = this.#contexts?.export === found ? this.#contexts.chosen : [];
    this.#parties.agreed({ export: found, style: this.#style, contexts });
  }

  #find(name: string): Export | undefined {
    const { exports } = this.#parties;
    return exports.find((each) => each.name === name) ?? (name === '' ? exports[0] : undefined);
  }

  #acknowledge(option: number): void {
    this.#reply(option, OptionReply.acknowledge, Buffer.alloc(0));
  }

  #refuse(option: number, type: number, why: string): void {
    this.#reply(option, type, Buffer.from(why));
  }

  #reply(option: number, type: number, data: Uint8Array): void {
    const head = Buffer.alloc(20);
    optionReplyMagic.copy(head);
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(type, 12);
    head.writeUInt32BE(data.length, 16);
    this.#parties.send(Buffer.concat([head, data]));
  }
}

/** A name and a list of queries; undefined unless they are as long as they say. */
function stringsOf(data: Buffer): readonly [string, ...string[]] | undefined {
  let at = 0;
  const string = (): string | undefined => {
    const length = at + 4 <= data.length ? data.readUInt32BE(at) : Infinity;
    if (length > mostStringBytes || at + 4 + length > data.length) return undefined;
    at += 4 + length;
    return data.toString('utf8', at - length, at);
  };
  const name = string();
  if (name === undefined || at + 4 > data.length) return undefined;
  const count = data.readUInt32BE(at);
  at += 4;
  if (count * 4 > data.length - at) return undefined;
  const queries: string[] = [];
  for (let index = 0; index < count; index++) {
    const query = string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return at === data.length ? [name, ...queries] : undefined;
}

/** What clients may send for an export. */
function transmissionFlags({ readOnly }: ExportFacts, style: HeaderStyle): number {
  const flag = TransmissionFlag;
  let flags = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.canMultiConnect | flag.sendCache;
  if (readOnly) flags |= flag.readOnly;
  else flags |= flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
  if (style !== 'simple') flags |= flag.sendDontFragment;
  if (style === 'extended') flags |= flag.blockStatusPayload;
  return flags;
}
