/** Files of web servers, for reading. */
import type { CowherdError } from '../../errors.js';
import { BaseFile } from '../base-file.js';
import { scatter, totalLength } from '../vector.js';
import type { Completion, StorageHandle, StorageLimits, StorageStatus } from '../storage.js';
import { BlockCache } from './block-cache.js';
import { cannotRead } from './failures.js';
import { type Found, HttpSource, type Identity, type SignRequest } from './http-source.js';
import type { HttpOptions } from '../http-options.js';
import { StreamWindow } from './stream-window.js';

const defaultAheadBytes = 4 * 1024 * 1024;

/** What another thread needs to read the file too. */
interface HttpHandle extends StorageHandle {
  readonly url: string;
  readonly options: HttpOptions;
  readonly identity: Identity;
}

/** What a file is called, and how requests for it are signed. */
export interface Known {
  readonly protocol: string;
  readonly filename: string;
  readonly sign?: SignRequest | undefined;
}

/** What the queues of one file on one thread share. */
interface Shared {
  readonly url: string;
  readonly options: HttpOptions;
  readonly source: HttpSource;
  readonly identity: Identity;
  readonly reader: BlockCache | StreamWindow;
  users: number;
}

/**
 * Opens a file of a web server.
 *
 * @throws CowherdError naming the URL, without its password
 */
export async function openHttpFile(
  url: string,
  options: HttpOptions,
  known: Known = knownBy(url),
  signal?: AbortSignal,
): Promise<HttpFile> {
  const source = new HttpSource(new URL(url), known.filename, options, known.sign, signal);
  try {
    const found = await source.open();
    return new HttpFile(known, share(url, options, source, found));
  } catch (error) {
    source.close();
    throw error;
  }
}

/** The file of another thread's handle. */
export async function attachHttpFile(
  handle: StorageHandle,
  known: Known = { protocol: handle.protocol, filename: handle.filename },
): Promise<HttpFile> {
  const { url, options, identity } = handle as HttpHandle;
  const source = new HttpSource(new URL(url), known.filename, options, known.sign);
  await source.resume(identity);
  return new HttpFile(known, share(url, options, source, { ...identity, begin: new Uint8Array() }));
}

function knownBy(url: string): Known {
  return { protocol: new URL(url).protocol.slice(0, -1), filename: printableUrl(url) };
}

/** A URL as messages have it: without its password. */
export function printableUrl(url: string): string {
  const parsed = new URL(url);
  if (parsed.password === '') return url;
  parsed.password = '';
  return parsed.href;
}

function share(url: string, options: HttpOptions, source: HttpSource, found: Found): Shared {
  const { size, validator, begin } = found;
  const reader =
    begin === undefined
      ? new StreamWindow(size, source.timeoutMs, () => source.stream())
      : new BlockCache(
          (into, offset) => source.read(into, offset),
          size,
          begin,
          options.readAheadBytes ?? defaultAheadBytes,
        );
  return { url, options, source, identity: { size, validator }, reader, users: 0 };
}

/** A file of a web server, open for one queue. */
export class HttpFile extends BaseFile {
  readonly protocol: string;
  readonly limits: StorageLimits = {
    requestAlignment: 1,
    zeroInit: false,
    detectsHoles: false,
    blockDevice: false,
  };
  readonly #shared: Shared;

  constructor({ filename, protocol }: Known, shared: Shared) {
    super(filename, true);
    this.#shared = shared;
    shared.users += 1;
    this.protocol = protocol;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#shared.identity.size);
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  get isSequential(): boolean {
    return this.#shared.reader instanceof StreamWindow;
  }

  openQueue(): HttpFile {
    return new HttpFile(this, this.#shared);
  }

  /** Undefined for a file that can only be read once, from its begin to its end. */
  override handle(): HttpHandle | undefined {
    const { url, options, identity, reader } = this.#shared;
    if (reader instanceof StreamWindow) return undefined;
    return { protocol: this.protocol, filename: this.filename, url, options, identity };
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.#read(buffer, offset), completion);
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const { reader } = this.#shared;
    try {
      await reader.read(buffer, offset);
    } catch (error) {
      throw reader instanceof StreamWindow ? this.#streamFailure(offset, error as Error) : error;
    }
  }

  #streamFailure(offset: number, error: Error): CowherdError {
    if (!(error instanceof RangeError)) {
      return cannotRead(this.filename, offset, error.message, 'ERR_COWHERD_IO', error);
    }
    return cannotRead(
      this.filename,
      offset,
      'the server does not give parts of files, so that it can only be read from its begin to its end',
      'ERR_COWHERD_UNSUPPORTED',
    );
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const bytes = new Uint8Array(totalLength(buffers));
    await this.#read(bytes, offset);
    scatter(bytes, buffers);
  }

  protected doStatus(offset: number, length: number): StorageStatus {
    const left = this.#shared.identity.size - offset;
    return left > 0 ? { data: true, length: Math.min(left, length) } : { data: false, length };
  }

  protected startWrite(): void {
    throw this.#unexpected();
  }

  protected doWriteVector(): Promise<void> {
    return Promise.reject(this.#unexpected());
  }

  protected doFlush(): Promise<void> {
    return Promise.resolve();
  }

  protected doTruncate(): Promise<void> {
    return Promise.reject(this.#unexpected());
  }

  protected doAllocate(): Promise<void> {
    return Promise.reject(this.#unexpected());
  }

  protected doWriteZeroes(): Promise<void> {
    return Promise.reject(this.#unexpected());
  }

  protected doDiscard(): Promise<boolean> {
    return Promise.reject(this.#unexpected());
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.reject(this.#unexpected());
  }

  /** Writes are refused before they get here, since the file is read-only. */
  #unexpected(): Error {
    return new Error(`'${this.filename}' is read-only`);
  }

  protected doClose(): Promise<void> {
    const { source, reader } = this.#shared;
    this.#shared.users -= 1;
    if (this.#shared.users === 0) {
      if (reader instanceof StreamWindow) reader.close();
      source.close();
    }
    return Promise.resolve();
  }
}
