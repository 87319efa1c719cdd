/** Memory for what is enciphered, used again so that steady work neither zeroes nor collects any. */
import { alignedBuffer } from '../../native/aligned-buffer.js';

/** Bytes of the smallest buffers. */
const leastBytes = 4096;
/** Bytes of all buffers that are kept while nobody uses them. */
const keptBytes = 8 * 1024 * 1024;

/** Lends buffers of at least so many bytes, without end. */
export class SpareBuffers {
  /** By their lengths, which are powers of two. */
  readonly #spare = new Map<number, Uint8Array[]>();
  #kept = 0;

  /** A buffer with whatever it held before. It has to be given back. */
  lend(bytes: number): Uint8Array {
    const length = Math.max(leastBytes, 2 ** Math.ceil(Math.log2(bytes)));
    const buffer = this.#spare.get(length)?.pop();
    if (buffer === undefined) return alignedBuffer(length);
    this.#kept -= length;
    return buffer;
  }

  /** Takes a lent buffer back, which nobody may use any more. */
  giveBack(buffer: Uint8Array): void {
    const { length } = buffer;
    if (this.#kept + length > keptBytes) return;
    this.#kept += length;
    const others = this.#spare.get(length);
    if (others === undefined) this.#spare.set(length, [buffer]);
    else others.push(buffer);
  }
}
