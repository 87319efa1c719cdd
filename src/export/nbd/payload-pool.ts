/** Memory for what requests read and write, used again: page-aligned, with room for a head in front. */
import { alignedBuffer } from '../../native/aligned-buffer.js';

/** Bytes in front of a payload: a page, so that the payload is aligned too. */
const roomBytes = 4096;
/** Smallest payload that memory is kept for, in bytes. */
const leastBytes = 4096;
/** Spare memory that is kept, in bytes. */
const spareBytes = 32 * 1024 * 1024;

/** Memory for one payload. */
export interface Payload {
  readonly bytes: Uint8Array;
  /** The payload with so many bytes in front of it. */
  withHead(headBytes: number): Buffer;
  /** Gives it back; nothing may read or write it any more. */
  release(): void;
}

/** See the file's comment. */
export class PayloadPool {
  /** By their size. */
  readonly #spare = new Map<number, Uint8Array[]>();
  #spareBytes = 0;

  /** @param length bytes, at least one */
  take(length: number): Payload {
    const size = 2 ** Math.ceil(Math.log2(Math.max(length, leastBytes)));
    const spare = this.#spare.get(size)?.pop();
    if (spare !== undefined) this.#spareBytes -= size;
    const memory = spare ?? alignedBuffer(roomBytes + size);
    return {
      bytes: memory.subarray(roomBytes, roomBytes + length),
      withHead: (headBytes) =>
        Buffer.from(memory.buffer, memory.byteOffset + roomBytes - headBytes, headBytes + length),
      release: () => {
        this.#keep(memory, size);
      },
    };
  }

  #keep(memory: Uint8Array, size: number): void {
    if (this.#spareBytes + size > spareBytes) return;
    this.#spareBytes += size;
    const spare = this.#spare.get(size);
    if (spare === undefined) this.#spare.set(size, [memory]);
    else spare.push(memory);
  }
}
