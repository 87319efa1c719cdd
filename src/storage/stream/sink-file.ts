/**
 * A file that is written from its begin to its end, and goes to somewhere that takes bytes in order only, such
 * as a pipe. What has not been sent may still be read and changed.
 */
import { CowherdError } from '../../errors.js';
import { BaseFile } from '../base-file.js';
import { totalLength } from '../vector.js';
import type { Completion, StorageFile, StorageLimits, StorageStatus } from '../storage.js';

/** Bytes that are sent at once, about. */
const sentBytes = 1024 * 1024;

/** Takes the next bytes. */
export type Send = (bytes: Uint8Array) => Promise<void>;

/** See the file's comment. */
export class SinkFile extends BaseFile {
  readonly protocol = 'file';
  readonly limits: StorageLimits = {
    requestAlignment: 1,
    zeroInit: true,
    detectsHoles: false,
    blockDevice: false,
  };
  readonly #send: Send;
  /** What has not been sent: it begins at `#sent`. */
  #held = Buffer.alloc(0);
  #sent = 0;
  #isFlowing = false;
  /** Bytes are sent one after the other. */
  #sending: Promise<void> = Promise.resolve();

  /** @param filename what failures name */
  constructor(filename: string, send: Send) {
    super(filename, false);
    this.#send = send;
  }

  /** Nothing that is written by now is changed any more. */
  flow(): void {
    this.#isFlowing = true;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#size);
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** The same file: what is sent has one order. */
  openQueue(): StorageFile {
    throw this.#refusal('has one queue');
  }

  get #size(): number {
    return this.#sent + this.#held.length;
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doReadVector([buffer], offset), completion);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doWriteVector([buffer], offset), completion);
  }

  protected doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    if (offset < this.#sent) return Promise.reject(this.#refusal('cannot be read again'));
    let at = offset - this.#sent;
    for (const buffer of buffers) {
      const known = this.#held.subarray(at, at + buffer.length);
      buffer.set(known);
      buffer.fill(0, known.length);
      at += buffer.length;
    }
    return Promise.resolve();
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    if (offset < this.#sent) throw this.#refusal('is written from its begin to its end');
    const at = offset - this.#sent;
    const end = at + totalLength(buffers);
    if (end > this.#held.length) this.#resize(end);
    let next = at;
    for (const buffer of buffers) {
      this.#held.set(buffer, next);
      next += buffer.length;
    }
    if (this.#isFlowing && this.#held.length >= sentBytes) await this.#sendHeld();
  }

  /** @param length of what has not been sent */
  #resize(length: number): void {
    const held = Buffer.alloc(length);
    this.#held.copy(held);
    this.#held = held;
  }

  #sendHeld(): Promise<void> {
    const bytes = this.#held;
    this.#held = Buffer.alloc(0);
    this.#sent += bytes.length;
    this.#sending = this.#sending.then(() => this.#send(bytes));
    return this.#sending;
  }

  protected doFlush(): Promise<void> {
    return Promise.resolve();
  }

  protected doTruncate(size: number): Promise<void> {
    if (size < this.#sent) return Promise.reject(this.#refusal('cannot be cut off'));
    this.#resize(size - this.#sent);
    return Promise.resolve();
  }

  protected doAllocate(offset: number, length: number): Promise<void> {
    return this.doWriteZeroes(offset, length);
  }

  protected doWriteZeroes(offset: number, length: number): Promise<void> {
    return this.doWriteVector([new Uint8Array(length)], offset);
  }

  protected doDiscard(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected doStatus(offset: number, length: number): StorageStatus {
    const left = this.#size - offset;
    return left > 0 ? { data: true, length: Math.min(left, length) } : { data: false, length };
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected async doClose(): Promise<void> {
    if (this.#held.length > 0) await this.#sendHeld();
    await this.#sending;
  }

  #refusal(why: string): CowherdError {
    const { filename } = this;
    return new CowherdError('ERR_COWHERD_UNSUPPORTED', `'${filename}' ${why}`, { filename });
  }
}
