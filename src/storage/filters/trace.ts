/** A filter that tells of every operation, in the order in which they are submitted. */
import type { StorageFile } from '../storage.js';
import { FilterFile, type StorageOperation } from './filter-file.js';

/** See the file's comment. */
export class TraceFile extends FilterFile {
  readonly #record: (operation: StorageOperation) => void;

  /** @param record called before each operation of any queue of this file */
  constructor(inner: StorageFile, record: (operation: StorageOperation) => void) {
    super(inner);
    this.#record = record;
  }

  openQueue(): TraceFile {
    return new TraceFile(this.inner.openQueue(), this.#record);
  }

  protected intercept({ kind, offset, length }: StorageOperation): undefined {
    this.#record({ kind, offset, length });
  }
}
