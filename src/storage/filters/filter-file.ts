/** What filters share: a file that shows each operation to a hook, hands it on, and tells when it has ended. */
import type { CowherdError } from '../../errors.js';
import { PromiseCompletion } from '../base-file.js';
import { totalLength } from '../vector.js';
import { BufferedCopier } from '../buffered-copier.js';
import type {
  AllocateMode,
  Completion,
  CopyRule,
  DataCopier,
  EventHearer,
  StorageFile,
  StorageHandle,
  StorageLimits,
  StorageStatus,
} from '../storage.js';
import type { FilterUse } from './filter.js';

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

/** The handle of a filtered file: that of the file below, and the filter. */
export interface FilterHandle extends StorageHandle {
  readonly inner: StorageHandle;
  /** Of the further files that the filter owns. */
  readonly others: readonly StorageHandle[];
  readonly filter: FilterUse;
}

/** See the file's comment. */
export abstract class FilterFile implements StorageFile {
  /** The file that is filtered. */
  readonly inner: StorageFile;
  /** Further files that the filter owns. */
  readonly others: readonly StorageFile[];
  readonly #use: FilterUse | undefined;
  /** Operations that are held back, and what else `close` has to wait for. */
  readonly #held = new Set<Promise<unknown>>();
  #isClosing = false;

  /** @param use of a filter that users name, which other threads can have too */
  protected constructor(inner: StorageFile, use?: FilterUse, others: readonly StorageFile[] = []) {
    this.inner = inner;
    this.others = others;
    this.#use = use;
  }

  /** Called before each operation. */
  protected abstract intercept(operation: StorageOperation): Interception;
  /** Called when an operation has ended, before who asked for it knows. */
  protected settled?(operation: StorageOperation, error: Error | null): void;
  abstract openQueue(): StorageFile;

  handle(): FilterHandle | undefined {
    const inner = this.inner.handle?.();
    if (inner === undefined || this.#use === undefined) return undefined;
    const others: StorageHandle[] = [];
    for (const other of this.others) {
      const handle = other.handle?.();
      if (handle === undefined) return undefined;
      others.push(handle);
    }
    const { protocol, filename } = this;
    return { protocol, filename, inner, others, filter: this.#use };
  }

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

  /** The file whose bytes it shows, as they are stored there; undefined where it decides what it shows. */
  get shown(): StorageFile | undefined {
    return this.inner;
  }

  get events(): EventHearer | undefined {
    return this.inner.events;
  }

  /** Whether it is a filter that users name. */
  get isNamed(): boolean {
    return this.#use !== undefined;
  }

  get isSequential(): boolean {
    return this.inner.isSequential === true;
  }

  extentSizeHint(): number | undefined {
    return this.inner.extentSizeHint?.();
  }

  submitRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    const operation = {
      kind: 'read',
      offset,
      length: buffer.byteLength,
      buffers: [buffer],
    } as const;
    this.#submit(operation, completion, (told) => {
      this.inner.submitRead(buffer, offset, told);
    });
  }

  submitWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    const operation = {
      kind: 'write',
      offset,
      length: buffer.byteLength,
      buffers: [buffer],
    } as const;
    this.#submit(operation, completion, (told) => {
      this.inner.submitWrite(buffer, offset, told);
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
    this.#isClosing = true;
    return this.#run('close', 0, 0, () => this.#closeInner());
  }

  /** Whether `close` has been called. */
  protected get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Has `close` wait for work to end, which may go on below. */
  protected hold<Result>(work: Promise<Result>): Promise<Result> {
    this.#held.add(work);
    const release = (): void => {
      this.#held.delete(work);
    };
    work.then(release, release);
    return work;
  }

  async #closeInner(): Promise<void> {
    while (this.#held.size > 0) await Promise.allSettled(this.#held);
    const ended = await Promise.allSettled(
      [this.inner, ...this.others].map((file) => file.close()),
    );
    const failed = ended.find((each) => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason as Error;
  }

  #submit(
    operation: StorageOperation,
    completion: Completion,
    action: (told: Completion) => void,
  ): void {
    const intercepted = this.intercept(operation);
    const told = this.settled === undefined ? completion : this.#telling(operation, completion);
    if (intercepted === undefined) {
      action(told);
      return;
    }
    void this.hold(
      Promise.resolve(intercepted).then((error) => {
        if (error === undefined) action(told);
        // In a turn of its own: what the completion throws is no rejection of this promise.
        else
          process.nextTick(() => {
            told.complete(error);
          });
      }),
    );
  }

  /** A completion that tells the filter before it tells who asked. */
  #telling(operation: StorageOperation, completion: Completion): Completion {
    return {
      complete: (error) => {
        this.settled?.(operation, error);
        completion.complete(error);
      },
    };
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
    try {
      let error = this.intercept(operation);
      if (error instanceof Promise)
        error = await (operation.kind === 'close' ? error : this.hold(error));
      if (error !== undefined) throw error;
      const result = await action();
      this.settled?.(operation, null);
      return result;
    } catch (error) {
      this.settled?.(operation, error as Error);
      throw error;
    }
  }
}

/** The file under all filters, but for those that users have named: nothing goes around these. */
function unfiltered(file: StorageFile): StorageFile {
  return file instanceof FilterFile && !file.isNamed ? unfiltered(file.inner) : file;
}
