/**
 * What every storage backend does alike: checking arguments, refusing what a closed or read-only
 * file cannot do, counting what is under way, and promises around the hot path.
 */
import assert from 'node:assert/strict';
import { CowherdError, type CowherdErrorCode } from '../errors.js';
import { BufferedCopier } from './buffered-copier.js';
import type {
  AllocateMode,
  Completion,
  CopyRule,
  DataCopier,
  StorageFile,
  StorageHandle,
  StorageLimits,
  StorageStatus,
} from './storage.js';
import { totalLength } from './vector.js';

/** Settles a promise by a request's completion. */
export class PromiseCompletion implements Completion {
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;

  constructor(resolve: () => void, reject: (error: Error) => void) {
    this.#resolve = resolve;
    this.#reject = reject;
  }

  complete(error: Error | null): void {
    if (error === null) this.#resolve();
    else this.#reject(error);
  }
}

/** See the file's comment. A backend calls `begin` before and `end` after everything it does. */
export abstract class BaseFile implements StorageFile {
  readonly filename: string;
  readonly readOnly: boolean;
  abstract readonly limits: StorageLimits;
  abstract readonly protocol: string;

  #underWay = 0;
  #closing: Promise<void> | undefined;
  #whenIdle: (() => void) | undefined;

  protected constructor(filename: string, readOnly: boolean) {
    this.filename = filename;
    this.readOnly = readOnly;
  }

  abstract size(): Promise<number>;
  abstract allocatedSize(): Promise<number | undefined>;
  abstract openQueue(): StorageFile;

  handle(): StorageHandle | undefined {
    return undefined;
  }

  /** Starts a checked read; the completion must come later, through `end`. */
  protected abstract startRead(buffer: Uint8Array, offset: number, completion: Completion): void;
  protected abstract startWrite(buffer: Uint8Array, offset: number, completion: Completion): void;
  protected abstract doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void>;
  protected abstract doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void>;
  protected abstract doFlush(): Promise<void>;
  protected abstract doTruncate(size: number, reserve: boolean): Promise<void>;
  protected abstract doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void>;
  protected abstract doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void>;
  protected abstract doDiscard(offset: number, length: number): Promise<boolean>;
  protected abstract doStatus(
    offset: number,
    length: number,
  ): StorageStatus | Promise<StorageStatus>;
  protected abstract doCopyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean>;
  /** Called once, when nothing is under way any more. */
  protected abstract doClose(): Promise<void>;

  submitRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    const length = buffer.byteLength;
    if (this.#closing !== undefined || !isRange(offset, length)) {
      this.#refuse(this.#rangeRefusal(offset, length), completion);
      return;
    }
    this.#underWay += 1;
    this.startRead(buffer, offset, completion);
  }

  submitWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    const length = buffer.byteLength;
    if (this.#closing !== undefined || this.readOnly || !isRange(offset, length)) {
      this.#refuse(this.changeRefusal(offset, length), completion);
      return;
    }
    this.#underWay += 1;
    this.startWrite(buffer, offset, completion);
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.submitRead(buffer, offset, new PromiseCompletion(resolve, reject));
    });
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.submitWrite(buffer, offset, new PromiseCompletion(resolve, reject));
    });
  }

  readVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const refusal = this.#rangeRefusal(offset, totalLength(buffers));
    return this.#run(refusal, () => this.doReadVector(buffers, offset));
  }

  writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const refusal = this.changeRefusal(offset, totalLength(buffers));
    return this.#run(refusal, () => this.doWriteVector(buffers, offset));
  }

  flush(): Promise<void> {
    return this.#run(this.#rangeRefusal(0, 0), () =>
      this.readOnly ? Promise.resolve() : this.doFlush(),
    );
  }

  truncate(size: number, reserve = false): Promise<void> {
    return this.#run(this.changeRefusal(size, 0), () => this.doTruncate(size, reserve));
  }

  allocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    return this.#run(this.changeRefusal(offset, length), async () => {
      if (length > 0) await this.doAllocate(offset, length, mode);
    });
  }

  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#run(this.changeRefusal(offset, length), async () => {
      if (length > 0) await this.doWriteZeroes(offset, length, unmap);
    });
  }

  discard(offset: number, length: number): Promise<boolean> {
    return this.#run(this.changeRefusal(offset, length), () =>
      length > 0 ? this.doDiscard(offset, length) : Promise.resolve(true),
    );
  }

  status(offset: number, length: number): Promise<StorageStatus> {
    const refusal =
      length > 0
        ? this.#rangeRefusal(offset, length)
        : this.#error('ERR_COWHERD_INVALID_ARGUMENT', 'status needs a length above zero', offset);
    return this.#run(refusal, () => this.doStatus(offset, length));
  }

  copyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean> {
    const refusal = this.changeRefusal(offset, length) ?? this.#rangeRefusal(sourceOffset, length);
    return this.#run(refusal, () =>
      length > 0 ? this.doCopyFrom(source, sourceOffset, offset, length) : Promise.resolve(true),
    );
  }

  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- what backends that can share ask about
  canCloneFrom(_source: StorageFile): boolean {
    return false;
  }

  dataCopier(rule: CopyRule): DataCopier {
    return new BufferedCopier(this, rule);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeWhenIdle();
    return this.#closing;
  }

  /** Whether `close` has been called. */
  protected get closing(): boolean {
    return this.#closing !== undefined;
  }

  /** Notes something more under way, which `close` must wait for. */
  protected begin(): void {
    this.#underWay += 1;
  }

  /** Notes that it ended. */
  protected end(): void {
    assert(this.#underWay > 0, 'an operation ends that was not under way');
    this.#underWay -= 1;
    if (this.#underWay === 0 && this.#whenIdle !== undefined) this.#whenIdle();
  }

  /** Ends what is under way, and completes it, when its work has ended. */
  protected settle(work: Promise<void>, completion: Completion): void {
    work.then(
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

  async #closeWhenIdle(): Promise<void> {
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await this.doClose();
  }

  async #run<Result>(
    refusal: CowherdError | undefined,
    action: () => Result | Promise<Result>,
  ): Promise<Result> {
    if (refusal !== undefined) throw refusal;
    this.#underWay += 1;
    try {
      return await action();
    } finally {
      this.end();
    }
  }

  #refuse(error: CowherdError | undefined, completion: Completion): void {
    process.nextTick(() => {
      completion.complete(error ?? null);
    });
  }

  #rangeRefusal(offset: number, length: number): CowherdError | undefined {
    if (this.#closing !== undefined) {
      return this.#error('ERR_COWHERD_CLOSED', `'${this.filename}' is closed`, offset);
    }
    if (!isRange(offset, length)) {
      return this.#error(
        'ERR_COWHERD_OUT_OF_RANGE',
        `${length} bytes at byte ${offset} of '${this.filename}' are out of range`,
        offset,
      );
    }
    return undefined;
  }

  /** Why a range cannot be changed, if it cannot. */
  protected changeRefusal(offset: number, length: number): CowherdError | undefined {
    if (this.readOnly) {
      return this.#error('ERR_COWHERD_READ_ONLY', `'${this.filename}' is read-only`, offset);
    }
    return this.#rangeRefusal(offset, length);
  }

  #error(code: CowherdErrorCode, message: string, offset: number): CowherdError {
    return new CowherdError(code, message, { filename: this.filename, offset });
  }
}

/** Whether a range lies within what a JavaScript number counts exactly. */
function isRange(offset: number, length: number): boolean {
  return (
    Number.isInteger(offset) &&
    Number.isInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset + length <= Number.MAX_SAFE_INTEGER
  );
}
