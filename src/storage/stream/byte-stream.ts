/** Bytes that come once, from the first to the last: from a pipe, or out of a packed file. */
import type { ByteProgress } from '../storage.js';

/** What a stream is made of beside its bytes. */
interface ByteStreamParts {
  /** What failures name. */
  readonly filename: string;
  /** The same in a sentence, with quotes if it is the name of a file. */
  readonly title: string;
  /** How much of what the bytes come from has been read, where that is known. */
  readonly progress?: (() => ByteProgress | undefined) | undefined;
  readonly close?: (() => Promise<void>) | undefined;
}

/** See the file's comment. One caller at a time reads it. */
export class ByteStream implements AsyncIterable<Uint8Array> {
  readonly filename: string;
  readonly title: string;
  readonly #parts: ByteStreamParts;
  readonly #source: AsyncIterator<Uint8Array>;
  /** Pieces that have been looked at, and not taken yet. */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #hasEnded = false;

  constructor(source: AsyncIterable<Uint8Array>, parts: ByteStreamParts) {
    this.#source = source[Symbol.asyncIterator]();
    this.#parts = parts;
    this.filename = parts.filename;
    this.title = parts.title;
  }

  /** How much of what the bytes come from has been read, where that is known. */
  get progress(): ByteProgress | undefined {
    return this.#parts.progress?.();
  }

  /** The next bytes, which stay to be taken: as many as are asked for, or all there are. */
  async peek(length: number): Promise<Uint8Array> {
    await this.#hold(length);
    if (this.#held.length > 1 && this.#held[0].length < length) this.#held = [this.#joined()];
    return this.#held[0]?.subarray(0, length) ?? new Uint8Array(0);
  }

  /** Takes the next bytes: as many as are asked for, or all there are. */
  async take(length: number): Promise<Uint8Array> {
    const bytes = await this.peek(length);
    this.#drop(bytes.length);
    return bytes;
  }

  /** Takes so many bytes, or all there are, and forgets them. @returns how many there were */
  async skip(length: number): Promise<number> {
    let left = length;
    while (left > 0) {
      await this.#hold(1);
      const taken = Math.min(left, this.#heldBytes);
      if (taken === 0) break;
      this.#drop(taken);
      left -= taken;
    }
    return length - left;
  }

  /** What is left, piece by piece, none of which is empty. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      await this.#hold(1);
      const piece = this.#held.at(0);
      if (piece === undefined) return;
      this.#drop(piece.length);
      yield piece;
    }
  }

  /** Ends it, whether all of it was read or not. */
  async close(): Promise<void> {
    this.#hasEnded = true;
    await this.#source.return?.();
    await this.#parts.close?.();
  }

  async #hold(length: number): Promise<void> {
    while (this.#heldBytes < length && !this.#hasEnded) {
      const next = await this.#source.next();
      if (next.done === true) {
        this.#hasEnded = true;
      } else if (next.value.length > 0) {
        this.#held.push(next.value);
        this.#heldBytes += next.value.length;
      }
    }
  }

  #joined(): Uint8Array {
    return this.#held.length === 1 ? this.#held[0] : Buffer.concat(this.#held);
  }

  #drop(length: number): void {
    this.#heldBytes -= length;
    for (let left = length; left > 0;) {
      const first = this.#held[0];
      if (first.length > left) {
        this.#held[0] = first.subarray(left);
        return;
      }
      this.#held.shift();
      left -= first.length;
    }
  }
}
