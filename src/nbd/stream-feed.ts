/** A stream that gives memory of its own, such as that of TLS, as the source of a reader. */
import type { Readable } from 'node:stream';
import type { FrameReader } from './frame-reader.js';

/** See the file's comment. */
export class StreamFeed {
  readonly #stream: Readable;
  readonly #reader: FrameReader;
  readonly #take: (chunk: Uint8Array) => void;
  /** What has come and is not taken yet. */
  #rest: Uint8Array = new Uint8Array(0);

  constructor(stream: Readable, reader: FrameReader) {
    this.#stream = stream;
    this.#reader = reader;
    this.#take = (chunk) => {
      this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
      this.resume();
    };
    stream.on('data', this.#take);
  }

  /** Leaves the stream to another reader. */
  end(): void {
    this.#stream.off('data', this.#take);
  }

  /** Whether all that has come was taken by the reader. */
  get isEmpty(): boolean {
    return this.#rest.length === 0;
  }

  /** Goes on, as far as the reader is not paused. */
  resume(): void {
    while (this.#rest.length > 0 && !this.#reader.isPaused) {
      const into = this.#reader.wanted();
      const count = Math.min(into.length, this.#rest.length);
      into.set(this.#rest.subarray(0, count));
      this.#rest = this.#rest.subarray(count);
      this.#reader.took(count);
    }
    if (this.#reader.isPaused) this.#stream.pause();
    else this.#stream.resume();
  }
}
