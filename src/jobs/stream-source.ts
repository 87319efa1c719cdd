/** A disk that is read once, in its order, as a source of a conversion. */
import { Mutex } from 'async-mutex';
import { CowherdError } from '../errors.js';
import type { ByteStream, StreamedDisk, StreamedPiece } from '../image/graph/source-stream.js';
import type { Source } from './concatenation.js';
import type { SourceExtent } from './host-holes.js';
import type { DiskDigest } from './disk-digest.js';

const sectorSize = 512;

/** A piece of which some bytes have not been read yet. */
interface HeldPiece extends StreamedPiece {
  unreadBytes: number;
}

/** See the file's comment. Each of its bytes is read once, about in order. */
export class StreamSource implements Source {
  readonly size: number;
  readonly #stream: ByteStream;
  readonly #pieces: AsyncIterator<StreamedPiece>;
  readonly #diskSize: number | undefined;
  readonly #pulling = new Mutex();
  readonly #held: HeldPiece[] = [];
  /** What has come and `map` has not told of yet. */
  readonly #news: { readonly start: number; readonly length: number }[] = [];
  /** Guest offset in bytes before which everything has come. */
  #end = 0;
  #hasEnded = false;
  #failure: { readonly error: unknown } | undefined;

  readonly #digest: DiskDigest | undefined;

  /**
   * @param mostBytes of a disk whose size is not known: as much as the target has room for
   * @param digest of the disk, which is there once all of it was read
   */
  constructor(
    stream: ByteStream,
    disk: StreamedDisk,
    mostBytes: number,
    digest: DiskDigest | undefined,
  ) {
    this.#digest = digest;
    this.#stream = stream;
    this.#diskSize = disk.size;
    this.#pieces = disk.pieces[Symbol.asyncIterator]();
    this.size = disk.size ?? mostBytes;
  }

  /** Bytes of the disk, once all of it was read. */
  get wholeSize(): number {
    return this.#diskSize ?? Math.ceil(this.#end / sectorSize) * sectorSize;
  }

  async *map(signal: AbortSignal | undefined): AsyncGenerator<SourceExtent> {
    let at = 0;
    const zeroes = (to: number): SourceExtent => ({ ...unstored, start: at, length: to - at });
    for (;;) {
      signal?.throwIfAborted();
      const next = this.#news.shift();
      if (next === undefined) {
        if (!(await this.#pull(this.#end + 1))) break;
        continue;
      }
      const { start, length } = next;
      if (start > at) yield zeroes(start);
      yield { ...stored, start, length };
      at = start + length;
    }
    if (this.#diskSize !== undefined && this.#diskSize > at) yield zeroes(this.#diskSize);
  }

  /** All of it in order, in place of `map` and `read`: bytes, or the length of a run of zeroes. */
  async *content(): AsyncGenerator<Uint8Array | number> {
    let at = 0;
    while (await this.#pull(this.#end + 1)) {
      for (const { offset, bytes } of this.#held.splice(0)) {
        if (offset > at) yield offset - at;
        yield bytes;
        at = offset + bytes.length;
      }
    }
    if (this.wholeSize > at) yield this.wholeSize - at;
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const end = offset + buffer.length;
    await this.#pull(end);
    buffer.fill(0);
    for (const piece of this.#held) {
      const from = Math.max(offset, piece.offset);
      const to = Math.min(end, piece.offset + piece.bytes.length);
      if (from >= to) continue;
      buffer.set(piece.bytes.subarray(from - piece.offset, to - piece.offset), from - offset);
      piece.unreadBytes -= to - from;
    }
    while (this.#held.length > 0 && this.#held[0].unreadBytes <= 0) this.#held.shift();
  }

  /** Takes pieces until everything before an offset has come. @returns false if the disk ends before */
  async #pull(end: number): Promise<boolean> {
    return await this.#pulling.runExclusive(async () => {
      while (this.#end < end && !this.#hasEnded) await this.#pullOne();
      return this.#end >= end;
    });
  }

  async #pullOne(): Promise<void> {
    // What has failed would seem to have ended.
    if (this.#failure !== undefined) throw this.#failure.error;
    try {
      const next = await this.#pieces.next();
      if (next.done === true) {
        this.#hasEnded = true;
        this.#digest?.addZeroesTo(this.wholeSize);
        return;
      }
      const { offset, bytes } = next.value;
      this.#end = offset + bytes.length;
      if (this.#end > this.size) throw this.#tooLong();
      this.#digest?.addZeroesTo(offset);
      this.#digest?.add(bytes);
      this.#held.push({ offset, bytes, unreadBytes: bytes.length });
      this.#news.push({ start: offset, length: bytes.length });
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }

  #tooLong(): CowherdError {
    const { filename, title } = this.#stream;
    const message = `${title} has more bytes than the ${this.size} that the target has room for`;
    return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename });
  }
}

const stored = { present: true, zero: false, data: true, compressed: false, depth: 0 } as const;
const unstored = { ...stored, zero: true, data: false } as const;
