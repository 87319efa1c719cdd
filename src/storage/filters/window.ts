/** A part of a file as a file of its own. */
import { BaseFile } from '../base-file.js';
import { totalLength } from '../vector.js';
import { operationError } from '../file/errno.js';
import type {
  AllocateMode,
  Completion,
  EventHearer,
  FilePlace,
  StorageFile,
  StorageHandle,
  StorageLimits,
  StorageStatus,
} from '../storage.js';

/** Which part it is. */
interface Window {
  /** Where it begins, in bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
}

/** The handle of a part: that of the whole, and which part it is. */
interface WindowHandle extends StorageHandle {
  readonly whole: StorageHandle;
  readonly window: Window;
}

/** Whether a handle is that of a part. */
export function isWindow(handle: StorageHandle): handle is WindowHandle {
  return 'whole' in handle && 'window' in handle;
}

/** What a part is called. */
interface WindowName {
  readonly protocol: string;
  readonly filename: string;
}

/**
 * See the file's comment. Its length is fixed; what is written lies within it. The window owns the file.
 */
export class WindowFile extends BaseFile {
  readonly protocol: string;
  readonly limits: StorageLimits;
  protected readonly inner: StorageFile;
  protected readonly window: Window;

  constructor(inner: StorageFile, { protocol, filename }: WindowName, window: Window) {
    super(filename, inner.readOnly);
    this.protocol = protocol;
    // Its size is fixed as that of a device is.
    this.limits = { ...inner.limits, zeroInit: false, blockDevice: !inner.readOnly };
    this.inner = inner;
    this.window = window;
  }

  size(): Promise<number> {
    return Promise.resolve(this.window.length);
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  get isSequential(): boolean {
    return this.inner.isSequential === true;
  }

  get events(): EventHearer | undefined {
    return this.inner.events;
  }

  override handle(): WindowHandle | undefined {
    const whole = this.inner.handle?.();
    if (whole === undefined) return undefined;
    const { protocol, filename } = this;
    return { protocol, filename, whole, window: this.window };
  }

  openQueue(): WindowFile {
    return new WindowFile(this.inner.openQueue(), this, this.window);
  }

  place(offset: number): FilePlace {
    const at = this.window.start + offset;
    return this.inner.place?.(at) ?? { file: this.inner, offset: at };
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    const within = Math.max(0, Math.min(buffer.length, this.window.length - offset));
    const part = buffer.subarray(0, within);
    buffer.fill(0, within);
    this.inner.submitRead(part, this.window.start + offset, {
      complete: (error) => {
        this.end();
        completion.complete(error);
      },
    });
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.doWriteVector([buffer], offset).then(
      () => {
        this.end();
        completion.complete(null);
      },
      (error: unknown) => {
        this.end();
        completion.complete(error as Error);
      },
    );
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    let at = offset;
    for (const buffer of buffers) {
      const within = Math.max(0, Math.min(buffer.length, this.window.length - at));
      buffer.fill(0, within);
      if (within > 0) await this.inner.read(buffer.subarray(0, within), this.window.start + at);
      at += buffer.length;
    }
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const length = totalLength(buffers);
    if (length === 0) return;
    await this.#within(offset, length, (at) => this.inner.writeVector(buffers, at));
  }

  protected doFlush(): Promise<void> {
    return this.inner.flush();
  }

  protected doTruncate(size: number): Promise<void> {
    return this.#within(size, 0, () => Promise.resolve());
  }

  protected doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    return this.#within(offset, length, (at) => this.inner.allocate(at, length, mode));
  }

  protected doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#within(offset, length, (at) => this.inner.writeZeroes(at, length, unmap));
  }

  protected doDiscard(offset: number, length: number): Promise<boolean> {
    return this.#within(offset, length, (at) => this.inner.discard(at, length));
  }

  protected async doStatus(offset: number, length: number): Promise<StorageStatus> {
    const within = this.window.length - offset;
    if (within <= 0) return { data: false, length };
    return await this.inner.status(this.window.start + offset, Math.min(within, length));
  }

  protected doCopyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean> {
    return this.#within(offset, length, (at) =>
      this.inner.copyFrom(source, sourceOffset, at, length),
    );
  }

  protected doClose(): Promise<void> {
    return this.inner.close();
  }

  /** Does something to a range, if all of it lies within the window. */
  async #within<Result>(
    offset: number,
    length: number,
    action: (at: number) => Promise<Result>,
  ): Promise<Result> {
    if (offset + length > this.window.length) {
      throw operationError('write to', this.filename, offset, 'ENOSPC');
    }
    return await action(this.window.start + offset);
  }
}
