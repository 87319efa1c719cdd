/** What filters share: a file that shows each operation to a hook and hands it on. */
import type { CowherdError } from '../../errors.js';
import { PromiseCompletion, totalLength } from '../base-file.js';
import { BufferedCopier } from '../buffered-copier.js';
import type {
  AllocateMode,
  Completion,
  CopyRule,
  DataCopier,
  StorageFile,
  StorageLimits,
  StorageStatus,
} from '../storage.js';

/** Kinds of operations that a filter tells apart; vectored transfers count as plain ones. */
export type OperationKind =
  | 'read'
  | 'write'
  | 'flush'
  | 'truncate'
  | 'allocate'
  | 'writeZeroes'
  | 'discard'
  | 'status'
  | 'copyFrom'
  | 'size'
  | 'close';

/** One operation as a filter sees it. */
export interface StorageOperation {
  readonly kind: OperationKind;
  /** Bytes; for `truncate` the new size. */
  readonly offset: number;
  readonly length: number;
  /** Of a transfer: what is filled, or written, one after the other. */
  readonly buffers?: readonly Uint8Array[];
}

/** An error to fail an operation with, or nothing to hand it on; a promise of it holds it back. */
export type Interception = CowherdError | undefined | Promise<CowherdError | undefined>;

/** See the file's comment. */
export abstract class FilterFile implements StorageFile {
  /** The file that is filtered. */
  readonly inner: StorageFile;

  protected constructor(inner: StorageFile) {
    this.inner = inner;
  }

  /** Called before each operation. */
  protected abstract intercept(operation: StorageOperation): Interception;
  abstract openQueue(): StorageFile;

  get filename(): string {
    return this.inner.filename;
  }

  get readOnly(): boolean {
    return this.inner.readOnly;
  }

  get protocol(): string {
    return this.inner.protocol;
  }

  get limits(): StorageLimits {
    return this.inner.limits;
  }

  submitRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    const operation = {
      kind: 'read',
      offset,
      length: buffer.byteLength,
      buffers: [buffer],
    } as const;
    this.#submit(operation, completion, () => {
      this.inner.submitRead(buffer, offset, completion);
    });
  }

  submitWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    const operation = {
      kind: 'write',
      offset,
      length: buffer.byteLength,
      buffers: [buffer],
    } as const;
    this.#submit(operation, completion, () => {
      this.inner.submitWrite(buffer, offset, completion);
    });
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
    const operation = { kind: 'read', offset, length: totalLength(buffers), buffers } as const;
    return this.#perform(operation, () => this.inner.readVector(buffers, offset));
  }

  writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const operation = { kind: 'write', offset, length: totalLength(buffers), buffers } as const;
    return this.#perform(operation, () => this.inner.writeVector(buffers, offset));
  }

  size(): Promise<number> {
    return this.#run('size', 0, 0, () => this.inner.size());
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#run('size', 0, 0, () => this.inner.allocatedSize());
  }

  flush(): Promise<void> {
    return this.#run('flush', 0, 0, () => this.inner.flush());
  }

  truncate(size: number, reserve?: boolean): Promise<void> {
    return this.#run('truncate', size, 0, () => this.inner.truncate(size, reserve));
  }

  allocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    return this.#run('allocate', offset, length, () => this.inner.allocate(offset, length, mode));
  }

  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#run('writeZeroes', offset, length, () =>
      this.inner.writeZeroes(offset, length, unmap),
    );
  }

  discard(offset: number, length: number): Promise<boolean> {
    return this.#run('discard', offset, length, () => this.inner.discard(offset, length));
  }

  status(offset: number, length: number): Promise<StorageStatus> {
    return this.#run('status', offset, length, () => this.inner.status(offset, length));
  }

  copyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean> {
    return this.#run('copyFrom', offset, length, () =>
      this.inner.copyFrom(unfiltered(source), sourceOffset, offset, length),
    );
  }

  canCloneFrom(): boolean {
    return false;
  }

  /** Through the filter, so that every transfer is seen. */
  dataCopier(rule: CopyRule): DataCopier {
    return new BufferedCopier(this, rule);
  }

  close(): Promise<void> {
    return this.#run('close', 0, 0, () => this.inner.close());
  }

  #submit(operation: StorageOperation, completion: Completion, action: () => void): void {
    const intercepted = this.intercept(operation);
    if (intercepted === undefined) {
      action();
      return;
    }
    void Promise.resolve(intercepted).then((error) => {
      if (error === undefined) action();
      // In a turn of its own: what the completion throws is no rejection of this promise.
      else
        process.nextTick(() => {
          completion.complete(error);
        });
    });
  }

  #run<Result>(
    kind: OperationKind,
    offset: number,
    length: number,
    action: () => Promise<Result>,
  ): Promise<Result> {
    return this.#perform({ kind, offset, length }, action);
  }

  async #perform<Result>(
    operation: StorageOperation,
    action: () => Promise<Result>,
  ): Promise<Result> {
    let error = this.intercept(operation);
    if (error instanceof Promise) error = await error;
    if (error !== undefined) throw error;
    return await action();
  }
}

/** The file under all filters. */
function unfiltered(file: StorageFile): StorageFile {
  return file instanceof FilterFile ? unfiltered(file.inner) : file;
}
