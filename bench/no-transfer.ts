/** A file that ends reads and writes at once, in batches of a tick as the ring does, and transfers nothing. */
import { FilterFile } from '../src/storage/filters/filter-file.js';
import type { Completion, StorageFile } from '../src/storage/storage.js';

/** A file whose hot path does nothing, once it is told so. */
export class NoTransfer extends FilterFile {
  /** Whether requests transfer nothing. */
  idle = false;
  #batch: Completion[] = [];
  readonly #drain = (): void => {
    const batch = this.#batch;
    this.#batch = [];
    for (const completion of batch) completion.complete(null);
  };

  static over(inner: StorageFile): NoTransfer {
    return new NoTransfer(inner);
  }

  override submitRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    if (this.idle) this.#end(completion);
    else super.submitRead(buffer, offset, completion);
  }

  override submitWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    if (this.idle) this.#end(completion);
    else super.submitWrite(buffer, offset, completion);
  }

  openQueue(): StorageFile {
    return this;
  }

  protected intercept(): undefined {
    return undefined;
  }

  #end(completion: Completion): void {
    this.#batch.push(completion);
    if (this.#batch.length === 1) process.nextTick(this.#drain);
  }
}
