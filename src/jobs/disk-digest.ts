/** The digest of a disk whose bytes come in order, with runs of zeroes told by their length. */
import { createHash } from 'node:crypto';

const zeroes = new Uint8Array(1024 * 1024);

/** See the file's comment. */
export class DiskDigest {
  readonly #hash;
  /** Bytes so far. */
  #length = 0;

  /** @param algorithm a digest that Node knows */
  constructor(algorithm: string) {
    this.#hash = createHash(algorithm);
  }

  add(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#length += bytes.length;
  }

  addZeroes(length: number): void {
    for (let left = length; left > 0; left -= zeroes.length) {
      this.#hash.update(zeroes.subarray(0, Math.min(left, zeroes.length)));
    }
    this.#length += length;
  }

  /** Zeroes up to an offset in bytes, if it lies ahead. */
  addZeroesTo(offset: number): void {
    this.addZeroes(Math.max(0, offset - this.#length));
  }

  /** The digest, in hexadecimal; nothing is added any more. */
  end(): string {
    return this.#hash.digest('hex');
  }
}
