/** The queue of an encrypted image that was opened to be described, without the key of its disk. */
import { type CowherdError, problemWith } from '../../errors.js';
import type { FormatQueue } from '../driver.js';

/** See the file's comment. */
export class DescribedQueue implements FormatQueue {
  readonly #filename: string;

  constructor(filename: string) {
    this.#filename = filename;
  }

  read(): Promise<void> {
    return Promise.reject(this.#refusal());
  }

  write(): Promise<void> {
    return Promise.reject(this.#refusal());
  }

  writeZeroes(): Promise<void> {
    return Promise.reject(this.#refusal());
  }

  discard(): Promise<void> {
    return Promise.reject(this.#refusal());
  }

  writeCompressed(): Promise<void> {
    return Promise.reject(this.#refusal());
  }

  reserve(): Promise<boolean> {
    return Promise.resolve(false);
  }

  dataCopy(): undefined {
    return undefined;
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #refusal(): CowherdError {
    const why = 'an encrypted image that was opened to be described only has no data to be read';
    return problemWith('ERR_COWHERD_UNSUPPORTED', this.#filename, why);
  }
}
