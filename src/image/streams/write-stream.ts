/**
 * One of Node's streams that fills a disk: what comes is gathered into pieces that begin at multiples of
 * their size, so that clusters are written whole, and several pieces are written at a time.
 */
import { Writable } from 'node:stream';
import { CowherdError, nameMemoryError, problemWith } from '../../errors.js';
import { alignedBuffer } from '../../native/aligned-buffer.js';
import type { WriteStreamOptions } from '../api/image.js';
import {
  type OptionRules,
  abortSignal,
  checkOptions,
  wholeNumber,
} from '../options/option-check.js';
import { destroyOnAbort } from './abort.js';

/** What a stream writes to. */
export interface StreamTarget {
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  write(buffer: Uint8Array, offset: number): Promise<void>;
  flush(): Promise<void>;
}

const rules: OptionRules<WriteStreamOptions> = { start: wholeNumber(0), signal: abortSignal };

const pieceBytes = 1024 * 1024;
/** Pieces in memory: those that are written, and the one that is being filled. */
const mostPieces = 5;

/** See `RequestTarget.createWriteStream`. */
export function createWriteStream(target: StreamTarget, options: WriteStreamOptions): Writable {
  const { filename, size } = target;
  checkOptions(options, rules, filename);
  const { start = 0, signal } = options;
  if (start > size) throw beyondEnd(target, start, 0);
  const stream = new ImageWriteStream(target, start);
  destroyOnAbort(stream, signal, filename);
  return stream;
}

/** See the file's comment. */
class ImageWriteStream extends Writable {
  readonly #target: StreamTarget;
  /** Guest offset of the next byte that comes. */
  #at: number;
  /** What is being filled, and how much of it is. */
  #piece: Uint8Array | undefined;
  #filled = 0;
  #pieces = 0;
  readonly #free: Uint8Array[] = [];
  readonly #underWay = new Set<Promise<void>>();

  constructor(target: StreamTarget, start: number) {
    // The pieces are the room there is; in web streams, which count what waits where Node counts bytes, a
    // larger mark would be many more.
    super({ highWaterMark: 1 });
    this.#target = target;
    this.#at = start;
  }

  override _write(chunk: Uint8Array, _encoding: string, callback: (error?: Error) => void): void {
    this.#take(chunk).then(
      () => {
        callback();
      },
      (error: unknown) => {
        callback(error as Error);
      },
    );
  }

  override _final(callback: (error?: Error) => void): void {
    this.#finish().then(
      () => {
        callback();
      },
      (error: unknown) => {
        callback(error as Error);
      },
    );
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#piece = undefined;
    void Promise.all(this.#underWay).then(() => {
      callback(error);
    });
  }

  async #take(chunk: Uint8Array): Promise<void> {
    const { size } = this.#target;
    if (this.#at + chunk.length > size) throw beyondEnd(this.#target, this.#at, chunk.length);
    for (let taken = 0; taken < chunk.length;) {
      this.#piece ??= await this.#room();
      const length = Math.min(chunk.length - taken, this.#piece.length - this.#filled);
      this.#piece.set(chunk.subarray(taken, taken + length), this.#filled);
      this.#filled += length;
      this.#at += length;
      taken += length;
      if (this.#filled === this.#piece.length) this.#writePiece();
    }
  }

  /** Memory for what comes next, up to where the next piece begins. */
  async #room(): Promise<Uint8Array> {
    while (this.#free.length === 0 && this.#pieces === mostPieces && !this.destroyed) {
      await Promise.race(this.#underWay);
    }
    if (this.destroyed) throw this.errored ?? closedStream(this.#target);
    let memory = this.#free.pop();
    if (memory === undefined) {
      memory = this.#newPiece();
      this.#pieces += 1;
    }
    return memory.subarray(0, pieceBytes - (this.#at % pieceBytes));
  }

  #newPiece(): Uint8Array {
    try {
      return alignedBuffer(pieceBytes);
    } catch (error) {
      throw nameMemoryError(error, this.#target.filename);
    }
  }

  #writePiece(): void {
    const piece = this.#piece!.subarray(0, this.#filled);
    const { buffer, byteOffset } = piece;
    const start = this.#at - this.#filled;
    this.#piece = undefined;
    this.#filled = 0;
    this.#note(
      this.#target.write(piece, start).then(() => {
        this.#free.push(new Uint8Array(buffer, byteOffset, pieceBytes));
      }),
    );
  }

  /** Makes what is written durable, when all of it is. */
  async #finish(): Promise<void> {
    if (this.#filled > 0) this.#writePiece();
    await Promise.all(this.#underWay);
    if (this.destroyed) return;
    const flush = this.#target.flush();
    this.#note(flush);
    await flush;
  }

  /** Counts work as under way until it ends; if it fails, so does the stream. */
  #note(work: Promise<void>): void {
    const noted = work
      .catch((error: unknown) => {
        this.destroy(error as Error);
      })
      .finally(() => {
        this.#underWay.delete(noted);
      });
    this.#underWay.add(noted);
  }
}

function beyondEnd({ filename, size }: StreamTarget, offset: number, length: number): CowherdError {
  return problemWith(
    'ERR_COWHERD_OUT_OF_RANGE',
    filename,
    `${length} bytes at guest offset ${offset} of a stream do not lie within the disk of ${size} bytes`,
    { offset },
  );
}

function closedStream({ filename }: StreamTarget): CowherdError {
  return new CowherdError('ERR_COWHERD_CLOSED', `A stream to '${filename}' was destroyed`, {
    filename,
  });
}
