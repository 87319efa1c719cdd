/** A disk that keeps nothing: what is written is gone, and all of it reads as zeroes. */
import { setTimeout as wait } from 'node:timers/promises';
import { BaseFile } from '../base-file.js';
import type { NullOptions } from '../null-options.js';
import type { Completion, StorageHandle, StorageLimits, StorageStatus } from '../storage.js';
import { operationError } from '../file/errno.js';

const defaultBytes = 2 ** 30;
const nanosecondsPerMs = 1e6;

/** All that such a disk is, for other threads too. */
interface NullHandle extends StorageHandle {
  readonly disk: NullOptions;
  readonly readOnly: boolean;
}

/** Whether a handle is that of such a disk. */
export function isNull(handle: StorageHandle): handle is NullHandle {
  return 'disk' in handle;
}

/** See the file's comment. */
export class NullFile extends BaseFile {
  readonly protocol: string;
  readonly isLockless = true;
  readonly limits: StorageLimits;
  readonly #disk: NullOptions;

  constructor({ protocol, filename, disk, readOnly }: NullHandle) {
    super(filename, readOnly);
    this.protocol = protocol;
    this.#disk = disk;
    this.limits = {
      requestAlignment: 1,
      zeroInit: disk.readZeroes === true,
      detectsHoles: disk.readZeroes === true,
      // Its size is fixed as that of a device is.
      blockDevice: true,
    };
  }

  override handle(): NullHandle {
    const { protocol, filename, readOnly } = this;
    return { protocol, filename, readOnly, disk: this.#disk };
  }

  openQueue(): NullFile {
    return new NullFile(this.handle());
  }

  size(): Promise<number> {
    return Promise.resolve(this.#disk.size ?? defaultBytes);
  }

  allocatedSize(): Promise<number> {
    return Promise.resolve(0);
  }

  protected startRead(buffer: Uint8Array, _offset: number, completion: Completion): void {
    this.settle(this.doReadVector([buffer]), completion);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doWriteVector([buffer], offset), completion);
  }

  protected async doReadVector(buffers: readonly Uint8Array[]): Promise<void> {
    for (const buffer of buffers) buffer.fill(0);
    await this.#pass();
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await this.#change(
      offset,
      buffers.reduce((bytes, each) => bytes + each.byteLength, 0),
    );
  }

  protected doFlush(): Promise<void> {
    return this.#pass();
  }

  protected doTruncate(size: number): Promise<void> {
    return this.#change(size, 0);
  }

  protected doAllocate(offset: number, length: number): Promise<void> {
    return this.#change(offset, length);
  }

  protected doWriteZeroes(offset: number, length: number): Promise<void> {
    return this.#change(offset, length);
  }

  protected async doDiscard(offset: number, length: number): Promise<boolean> {
    await this.#change(offset, length);
    return this.#disk.readZeroes === true;
  }

  protected async doStatus(offset: number, length: number): Promise<StorageStatus> {
    const left = (await this.size()) - offset;
    if (left <= 0) return { data: false, length };
    return { data: this.#disk.readZeroes !== true, length: Math.min(left, length) };
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected doClose(): Promise<void> {
    return Promise.resolve();
  }

  async #change(offset: number, length: number): Promise<void> {
    if (length > 0 && offset + length > (await this.size())) {
      throw operationError('write to', this.filename, offset, 'ENOSPC');
    }
    await this.#pass();
  }

  async #pass(): Promise<void> {
    const { latencyNs = 0 } = this.#disk;
    if (latencyNs > 0) await wait(Math.ceil(latencyNs / nanosecondsPerMs));
  }
}
