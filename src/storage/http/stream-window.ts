/**
 * A file of a server that gives no parts of files: it is read once, from its begin to its end. Reads may
 * come in another order within a window; what lies behind it is gone.
 */
import type { IncomingMessage } from 'node:http';

/** Bytes behind what was asked for last that are kept. */
const windowBytes = 32 * 1024 * 1024;
/** Bytes at the begin that are kept for good, since formats look there again. */
const beginBytes = 1024 * 1024;

interface Waiting {
  readonly end: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** See the file's comment. */
export class StreamWindow {
  readonly #size: number;
  readonly #open: () => Promise<IncomingMessage>;
  readonly #timeoutMs: number;
  readonly #begin: Uint8Array;
  /** What was received, but for what is gone: it ends at `#received`. */
  readonly #chunks: Buffer[] = [];
  #kept = 0;
  #received = 0;
  #stream: Promise<IncomingMessage> | undefined;
  #failure: Error | undefined;
  #waiting: Waiting[] = [];

  constructor(size: number, timeoutMs: number, open: () => Promise<IncomingMessage>) {
    this.#size = size;
    this.#timeoutMs = timeoutMs;
    this.#open = open;
    this.#begin = new Uint8Array(Math.min(size, beginBytes));
  }

  /**
   * Fills the buffer; what lies beyond the file's end is zeroes.
   *
   * @throws RangeError for bytes that are gone; an Error for a connection that failed
   */
  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const length = Math.max(0, Math.min(buffer.length, this.#size - offset));
    buffer.fill(0, length);
    if (length === 0) return;
    await this.#receive(offset + length);
    if (offset + length <= this.#begin.length) {
      buffer.set(this.#begin.subarray(offset, offset + length));
      return;
    }
    let at = this.#received - this.#kept;
    if (offset < at) throw new RangeError('gone');
    for (const chunk of this.#chunks) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + length, at + chunk.length);
      if (from < to) buffer.set(chunk.subarray(from - at, to - at), from - offset);
      at += chunk.length;
    }
  }

  close(): void {
    void this.#stream?.then((stream) => stream.destroy()).catch(() => undefined);
  }

  /** Waits until so many bytes have come. */
  async #receive(end: number): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#received >= end) return;
    const received = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ end, resolve, reject });
    });
    this.#stream ??= this.#connect();
    this.#stream.then(
      (stream) => stream.resume(),
      (error: unknown) => {
        this.#fail(error as Error);
      },
    );
    await received;
  }

  async #connect(): Promise<IncomingMessage> {
    const stream = await this.#open();
    stream.on('data', (chunk: Buffer) => {
      stream.setTimeout(this.#timeoutMs);
      this.#take(chunk);
      if (this.#waiting.length === 0) {
        stream.pause();
        stream.setTimeout(0);
      }
    });
    stream.setTimeout(this.#timeoutMs, () => {
      this.#fail(new Error('the server stopped sending'));
      stream.destroy();
    });
    stream.once('error', (error) => {
      this.#fail(error);
    });
    stream.once('close', () => {
      if (this.#received < this.#size) {
        this.#fail(new Error('the server closed the connection too early'));
      }
    });
    return stream;
  }

  #take(chunk: Buffer): void {
    if (this.#received < this.#begin.length) {
      this.#begin.set(chunk.subarray(0, this.#begin.length - this.#received), this.#received);
    }
    this.#chunks.push(chunk);
    this.#kept += chunk.length;
    this.#received += chunk.length;
    while (this.#kept - this.#chunks[0].length >= windowBytes) {
      this.#kept -= this.#chunks.shift()!.length;
    }
    if (this.#received > this.#size) {
      this.#fail(new Error('the server sends more than it said'));
      return;
    }
    const arrived = this.#waiting.filter(({ end }) => end <= this.#received);
    if (arrived.length === 0) return;
    this.#waiting = this.#waiting.filter(({ end }) => end > this.#received);
    for (const { resolve } of arrived) resolve();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { reject } of waiting) reject(this.#failure);
  }
}
