/** Exports of NBD servers as files of a fixed length: a connection for each queue, where the server allows that. */
import { CowherdError, cannotOpen, errorFromErrno, printable } from '../../errors.js';
import { describeErrno, errnoName } from '../../system-errors.js';
import { Command, CommandFlag, TransmissionFlag } from '../../nbd/protocol.js';
import { readTlsFolder } from '../../nbd/tls-credentials.js';
import { BaseFile } from '../base-file.js';
import { gather, scatter, totalLength } from '../vector.js';
import type {
  AllocateMode,
  Completion,
  StorageHandle,
  StorageLimits,
  StorageOpenOptions,
  StorageStatus,
} from '../storage.js';
import { BlockWrites } from './block-writes.js';
import { type ClientRequest, NbdClient, ServerError, type Stretch } from './client.js';
import { type ExportWords, NbdConnection, newExportWords } from './connection.js';
import type { ExportInfo } from './negotiation.js';
import { type NbdLocation, parseNbdUri } from './uri.js';

/** Bytes that one request zeroes, discards or asks about at most. */
const mostRangeBytes = 1024 * 1024 * 1024;
/** Seconds for which a server that has gone is looked for by default. */
const usualReconnectSeconds = 10;
/** State of a stretch that reads as zeroes, in `base:allocation`. */
const zeroState = 2;

/** What another thread needs to open the export too. */
interface NbdHandle extends StorageHandle {
  readonly options: StorageOpenOptions;
  readonly words: ExportWords;
}

/** What the queues of one export on one thread share. */
interface Shared {
  readonly filename: string;
  readonly location: NbdLocation;
  readonly options: StorageOpenOptions;
  readonly info: ExportInfo;
  readonly words: ExportWords;
  /** The first connection, which is the only one where the server allows no others. */
  readonly first: NbdConnection;
  /** Orders writes where the server takes whole blocks only. */
  readonly blocks: BlockWrites | undefined;
  users: number;
}

/** Opens an export. @throws CowherdError naming it */
export async function openNbdFile(
  name: string,
  options: StorageOpenOptions,
  words = newExportWords(),
): Promise<NbdFile> {
  const { signal } = options;
  const location = await locationOf(name, options);
  let first: NbdClient;
  try {
    first = await NbdClient.connect(location, signal);
  } catch (error) {
    if (signal?.aborted === true) {
      const message = `Work on '${name}' was cancelled`;
      throw new CowherdError('ERR_COWHERD_ABORTED', message, { filename: name, cause: error });
    }
    throw openFailure(name, error as NodeJS.ErrnoException);
  }
  const refusal = refusalOf(name, first, options.readOnly === true);
  if (refusal !== undefined) {
    first.close();
    throw refusal;
  }
  // Neither a signal nor a function goes to other threads.
  const { readOnly, cache, nbd } = options;
  const kept = {
    ...(readOnly !== undefined && { readOnly }),
    ...(cache !== undefined && { cache }),
    ...(nbd !== undefined && { nbd }),
  };
  const { info } = first;
  const connection = new NbdConnection(location, info, words, reconnectSecondsOf(kept), first);
  const blocks = info.blockBytes > 1 ? new BlockWrites(info.blockBytes) : undefined;
  return new NbdFile(
    { filename: name, location, options: kept, info, words, first: connection, blocks, users: 0 },
    connection,
  );
}

/** Where the export is, with the credentials that are used there. */
async function locationOf(name: string, { nbd }: StorageOpenOptions): Promise<NbdLocation> {
  const { location, isSecured, ...named } = parseNbdUri(name);
  const folder = nbd?.tlsCredentials ?? named.tlsCredentials;
  if (!isSecured && folder === undefined) return location;
  const hostname = nbd?.tlsHostname ?? named.tlsHostname;
  const username = nbd?.tlsUsername ?? named.tlsUsername;
  const credentials = folder === undefined ? {} : await readTlsFolder(folder, 'client');
  return { ...location, tls: { ...credentials, hostname, username } };
}

/** The export of another thread's handle. */
export function attachNbdFile(handle: StorageHandle): Promise<NbdFile> {
  const { filename, options, words } = handle as NbdHandle;
  return openNbdFile(filename, options, words);
}

function reconnectSecondsOf({ nbd }: StorageOpenOptions): number {
  return nbd?.reconnectSeconds ?? usualReconnectSeconds;
}

function openFailure(name: string, error: NodeJS.ErrnoException): CowherdError {
  const { code } = error;
  const reason = printable(code === undefined ? error.message : describeErrno(code));
  const isMissing = code === 'ENOENT' || code === 'ENOTFOUND';
  const kind = isMissing ? 'ERR_COWHERD_NOT_FOUND' : 'ERR_COWHERD_IO';
  return cannotOpen(kind, name, reason, { role: 'file', reason, cause: error });
}

/** Why an export cannot be used so, if it cannot. */
function refusalOf(name: string, { info }: NbdClient, readOnly: boolean): CowherdError | undefined {
  if (readOnly) return undefined;
  if ((info.flags & TransmissionFlag.readOnly) !== 0) {
    return cannotOpen('ERR_COWHERD_READ_ONLY', name, 'the server gives it to be read only');
  }
  return undefined;
}

/** See the file's comment. */
export class NbdFile extends BaseFile {
  readonly protocol = 'nbd';
  readonly isLockless = true;
  readonly limits: StorageLimits;
  readonly #shared: Shared;
  readonly #connection: NbdConnection;
  /** What was said of the stretches from an offset on, and is not asked again where nobody writes. */
  #known: { readonly offset: number; readonly stretches: readonly Stretch[] } | undefined;

  constructor(shared: Shared, connection?: NbdConnection) {
    super(shared.filename, shared.options.readOnly === true);
    this.#shared = shared;
    shared.users += 1;
    const { location, info, words, options } = shared;
    this.#connection =
      connection ?? new NbdConnection(location, info, words, reconnectSecondsOf(options));
    const { blockBytes, allocationId } = info;
    this.limits = {
      requestAlignment: blockBytes,
      zeroInit: false,
      detectsHoles: allocationId !== undefined,
      blockDevice: true,
    };
  }

  size(): Promise<number> {
    return Promise.resolve(this.#size);
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  openQueue(): NbdFile {
    return new NbdFile(this.#shared, this.#mayConnectAgain ? undefined : this.#shared.first);
  }

  override handle(): NbdHandle | undefined {
    if (!this.#mayConnectAgain) return undefined;
    const { filename, options, words } = this.#shared;
    return { protocol: this.protocol, filename, options, words };
  }

  get #size(): number {
    return this.#shared.info.size;
  }

  /**
   * Whether a flush covers what other connections have written. Where blocks are changed in part, they all
   * have to be of this thread.
   */
  get #mayConnectAgain(): boolean {
    if (this.readOnly) return true;
    return this.#shared.blocks === undefined && this.#can(TransmissionFlag.canMultiConnect);
  }

  #can(flag: number): boolean {
    return (this.#shared.info.flags & flag) !== 0;
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.#read(buffer, offset), completion);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.#write(buffer, offset), completion);
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const length = Math.max(0, Math.min(buffer.length, this.#size - offset));
    buffer.fill(0, length);
    if (length === 0) return;
    const { blockBytes, mostBytes } = this.#shared.info;
    const skip = offset % blockBytes;
    const whole = Math.ceil((skip + length) / blockBytes) * blockBytes;
    const isWhole = whole === length;
    const into = isWhole ? buffer.subarray(0, length) : new Uint8Array(whole);
    await this.#inPieces(whole, mostBytes, (at, count) => ({
      command: Command.read,
      offset: offset - skip + at,
      length: count,
      into: into.subarray(at, at + count),
    }));
    if (!isWhole) buffer.set(into.subarray(skip, skip + length));
  }

  async #write(buffer: Uint8Array, offset: number): Promise<void> {
    const { mostBytes } = this.#shared.info;
    if (buffer.length === 0) return;
    if (offset + buffer.length > this.#size) throw this.#failure('write to', offset, 'ENOSPC');
    const flags = this.#isThrough && this.#can(TransmissionFlag.sendFua) ? CommandFlag.fua : 0;
    const write = (data: Uint8Array, place: number): Promise<void> =>
      this.#inPieces(data.length, mostBytes, (at, length) => ({
        command: Command.write,
        flags,
        offset: place + at,
        length,
        data: data.subarray(at, at + length),
      }));
    const { blocks } = this.#shared;
    const read = (bytes: Uint8Array, place: number): Promise<void> => this.#read(bytes, place);
    if (blocks === undefined) await write(buffer, offset);
    else await blocks.write(buffer, offset, read, write);
    await this.#flushIfThrough(flags);
  }

  /** Whether what was written has to be durable before it counts as written. */
  get #isThrough(): boolean {
    const { cache } = this.#shared.options;
    return cache === 'writethrough' || cache === 'directsync';
  }

  async #flushIfThrough(flags: number): Promise<void> {
    if (this.#isThrough && (flags & CommandFlag.fua) === 0) await this.doFlush();
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const bytes = new Uint8Array(totalLength(buffers));
    await this.#read(bytes, offset);
    scatter(bytes, buffers);
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const bytes = new Uint8Array(totalLength(buffers));
    gather(buffers, bytes);
    await this.#write(bytes, offset);
  }

  protected async doFlush(): Promise<void> {
    if (this.#shared.options.cache === 'unsafe' || !this.#can(TransmissionFlag.sendFlush)) return;
    await this.#request('flush', { command: Command.flush, offset: 0, length: 0 });
  }

  protected doTruncate(size: number): Promise<void> {
    if (size === this.#size) return Promise.resolve();
    return Promise.reject(this.#failure('resize', undefined, 'EOPNOTSUPP'));
  }

  protected async doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    if (mode !== 'full') throw this.#failure('allocate space in', offset, 'EOPNOTSUPP');
    await this.doWriteZeroes(offset, length, false);
  }

  protected async doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    if (offset + length > this.#size) throw this.#failure('write zeroes to', offset, 'ENOSPC');
    if (!this.#can(TransmissionFlag.sendWriteZeroes)) {
      const zeroes = new Uint8Array(Math.min(length, this.#shared.info.mostBytes));
      for (let at = 0; at < length; at += zeroes.length) {
        await this.#write(zeroes.subarray(0, Math.min(zeroes.length, length - at)), offset + at);
      }
      return;
    }
    const isForced = this.#isThrough && this.#can(TransmissionFlag.sendFua);
    const flags = (unmap ? 0 : CommandFlag.noHole) | (isForced ? CommandFlag.fua : 0);
    const [begin, end] = this.#wholeBlocks(offset, offset + length);
    await this.#inPieces(end - begin, mostRangeBytes, (at, count) => ({
      command: Command.writeZeroes,
      flags,
      offset: begin + at,
      length: count,
    }));
    for (const [from, to] of [
      [offset, Math.min(begin, offset + length)],
      [Math.max(end, begin), offset + length],
    ]) {
      if (to > from) await this.#write(new Uint8Array(to - from), from);
    }
    await this.#flushIfThrough(flags);
  }

  /** What is discarded may read as anything. */
  protected async doDiscard(offset: number, length: number): Promise<boolean> {
    const inside = Math.min(length, this.#size - offset);
    if (!this.#can(TransmissionFlag.sendTrim) || inside <= 0) return false;
    const [begin, end] = this.#wholeBlocks(offset, offset + inside);
    await this.#inPieces(end - begin, mostRangeBytes, (at, count) => ({
      command: Command.trim,
      offset: begin + at,
      length: count,
    }));
    return false;
  }

  /** The blocks that lie wholly in a range: where they begin, and where they end, no earlier than that. */
  #wholeBlocks(offset: number, end: number): readonly [begin: number, end: number] {
    const { blockBytes } = this.#shared.info;
    const begin = Math.ceil(offset / blockBytes) * blockBytes;
    return [begin, Math.max(begin, end - (end % blockBytes))];
  }

  protected async doStatus(offset: number, length: number): Promise<StorageStatus> {
    const inside = Math.min(length, this.#size - offset);
    if (inside <= 0) return { data: false, length };
    const { allocationId, blockBytes } = this.#shared.info;
    if (allocationId === undefined) return { data: true, length: inside };
    const known = this.readOnly ? statusAt(this.#known, offset, inside) : undefined;
    if (known !== undefined) return known;
    const begin = offset - (offset % blockBytes);
    const asked = Math.min(
      mostRangeBytes,
      Math.ceil((offset + inside - begin) / blockBytes) * blockBytes,
    );
    const stretches = await this.#request('stat', {
      command: Command.blockStatus,
      offset: begin,
      length: Math.min(asked, this.#size - begin),
    });
    this.#known = { offset: begin, stretches };
    return statusAt(this.#known, offset, inside) ?? { data: true, length: inside };
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  /** Runs a range as requests side by side, none of them larger than may be. */
  async #inPieces(
    length: number,
    most: number,
    requestOf: (at: number, length: number) => ClientRequest,
  ): Promise<void> {
    const pieces: Promise<unknown>[] = [];
    for (let at = 0; at < length; at += most) {
      const request = requestOf(at, Math.min(most, length - at));
      pieces.push(this.#request(attempts[request.command] ?? 'read from', request));
    }
    await Promise.allSettled(pieces);
    await Promise.all(pieces);
  }

  async #request(attempt: string, request: ClientRequest): Promise<readonly Stretch[]> {
    try {
      return await this.#connection.request(request);
    } catch (error) {
      const { offset } = request;
      const place = attempt === 'flush' ? undefined : offset;
      if (!(error instanceof ServerError)) throw this.#lost(attempt, place, error as Error);
      throw this.#failure(attempt, place, errnoName(error.error), error);
    }
  }

  #failure(
    attempt: string,
    offset: number | undefined,
    name: string,
    cause?: unknown,
  ): CowherdError {
    const { filename } = this;
    const reason = describeErrno(name);
    const place = offset === undefined ? '' : ` at byte ${offset}`;
    const message = `Could not ${attempt} '${filename}'${place}: ${reason}`;
    return errorFromErrno(name, message, { role: 'file', filename, offset, reason, cause });
  }

  #lost(attempt: string, offset: number | undefined, cause: Error): CowherdError {
    const { filename } = this;
    const { code } = cause as NodeJS.ErrnoException;
    const reason = printable(code === undefined ? cause.message : describeErrno(code));
    const place = offset === undefined ? '' : ` at byte ${offset}`;
    const message = `Could not ${attempt} '${filename}'${place}: ${reason}`;
    return new CowherdError('ERR_COWHERD_IO', message, {
      role: 'file',
      filename,
      offset,
      reason,
      cause,
    });
  }

  protected async doClose(): Promise<void> {
    const { first } = this.#shared;
    if (this.#connection !== first) await this.#connection.close();
    this.#shared.users -= 1;
    if (this.#shared.users === 0) await first.close();
  }
}

/** What was attempted, as messages have it. */
const attempts: Readonly<Record<number, string | undefined>> = {
  [Command.read]: 'read from',
  [Command.write]: 'write to',
  [Command.trim]: 'discard',
  [Command.writeZeroes]: 'write zeroes to',
};

/** What is known of the bytes from an offset on. */
function statusAt(
  known: { readonly offset: number; readonly stretches: readonly Stretch[] } | undefined,
  offset: number,
  length: number,
): StorageStatus | undefined {
  let at = known?.offset ?? 0;
  if (known === undefined || offset < at) return undefined;
  for (const [count, state] of known.stretches) {
    if (offset < at + count) {
      const left = Math.min(length, at + count - offset);
      return { data: (state & zeroState) === 0, length: left };
    }
    at += count;
  }
  return undefined;
}
