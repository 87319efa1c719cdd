/** Reading the bytes of a snapshot table, of which a damaged header may say anything. */
import { maxOffset, maxSnapshotTableBytes } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';

/** Farthest byte of a table that QEMU reads. */
const maxPosition = 0x7fffffff;

/**
 * Whether a table is too long to be one.
 *
 * @param tableBytes what the entries so far take
 * @param position where they end, which is farther if they claim more than is taken
 */
export function isTableTooLong(tableBytes: number, position: number): boolean {
  return tableBytes > maxSnapshotTableBytes || position > maxPosition;
}

/** Reads a table front to back, several entries at a time; beyond the file there are zeroes. */
export class TableReader {
  /** Bytes from the table's begin. */
  position = 0;
  readonly #file: StorageFile;
  readonly #start: number;
  #ahead: Uint8Array = new Uint8Array(0);
  #aheadAt = 0;

  /** @param start host offset of the table in bytes */
  constructor(file: StorageFile, start: number) {
    this.#file = file;
    this.#start = start;
  }

  /** Goes on to where the next entry begins. */
  align(): void {
    this.position = Math.ceil(this.position / 8) * 8;
  }

  /** Leaves bytes out. */
  skip(length: number): void {
    this.position += length;
  }

  /** The next bytes, a copy. */
  async take(length: number): Promise<Uint8Array> {
    const aheadEnd = this.#aheadAt + this.#ahead.length;
    if (this.position < this.#aheadAt || this.position + length > aheadEnd) {
      this.#ahead = new Uint8Array(Math.max(length, 65536));
      this.#aheadAt = this.position;
      const at = this.#start + this.position;
      if (at <= maxOffset - this.#ahead.length) await this.#file.read(this.#ahead, at);
    }
    const from = this.position - this.#aheadAt;
    this.position += length;
    return this.#ahead.slice(from, from + length);
  }
}
