/** Reserving the blocks of a target ahead of its data, so that they lie together and in guest order. */
import type { RequestTarget } from '../image/api.js';
import type { Piece } from './copy-pieces.js';

/** Bytes reserved at once: as many as ext4 puts into one extent. */
const mostBytes = 128 * 1024 * 1024;
/** Data of fewer bytes are left to the file system, which puts small ones together as they are written. */
const leastBytes = 8 * 1024 * 1024;
/** Runs of zeroes that are given back out of one reservation, each by itself. */
const mostHoles = 64;
/** After more of them have been found, so much is not reserved for: there will be yet more. */
const restraintBytes = 64 * 1024 * 1024;

/** A piece of data that others may follow without a gap. */
export interface RunPiece extends Piece {
  /** Guest offset in bytes up to which there are data, as far as has been looked. */
  readonly dataEnd?: number;
}

/** See the file's comment. The target holds nothing yet, and is written in guest order. */
export class ReserveAhead {
  readonly #target: Pick<RequestTarget, 'reserve' | 'discard'>;
  /** Guest offset in bytes before which blocks are reserved, but for holes already found. */
  #end = 0;
  #holes = 0;
  #restrainedBytes = 0;

  constructor(target: Pick<RequestTarget, 'reserve' | 'discard'>) {
    this.#target = target;
  }

  /** The same pieces; those of data say how far data go on. */
  async *pieces(pieces: AsyncIterable<Piece>): AsyncGenerator<RunPiece> {
    let run: Piece[] = [];
    for await (const piece of pieces) {
      if (piece.kind === 'data' && (run.length === 0 || fits(run, piece))) {
        run.push(piece);
        continue;
      }
      yield* withEnd(run);
      run = [];
      if (piece.kind === 'data') run.push(piece);
      else yield piece;
    }
    yield* withEnd(run);
  }

  /**
   * To be called before a piece of data is written, when all before it have begun to be and none after
   * it has.
   *
   * @param runs lengths in bytes of its alternating runs of data and zeroes, the first of data
   */
  async before({ start, length, dataEnd = 0 }: RunPiece, runs: ArrayLike<number>): Promise<void> {
    const end = start + length;
    if (start < this.#end) {
      await this.#giveBackZeroes(start, runs);
      if (this.#holes > mostHoles) await this.#giveBackRest(end);
    } else if (this.#restrainedBytes > 0) {
      this.#restrainedBytes -= length;
    } else if (runs.length === 1 && dataEnd - start >= leastBytes) {
      this.#holes = 0;
      // The first block of a new file is written when it is made, and would lie apart.
      if (start === 0) await this.#target.discard(start, length);
      if (await this.#target.reserve(start, dataEnd - start)) this.#end = dataEnd;
      else this.#restrainedBytes = Infinity;
    }
  }

  async #giveBackZeroes(start: number, runs: ArrayLike<number>): Promise<void> {
    const discards: Promise<void>[] = [];
    for (let index = 0, at = start; index < runs.length; at += runs[index], index++) {
      if (index % 2 === 1) discards.push(this.#target.discard(at, runs[index]));
    }
    this.#holes += discards.length;
    await Promise.all(discards);
  }

  async #giveBackRest(offset: number): Promise<void> {
    this.#restrainedBytes = restraintBytes;
    if (offset < this.#end) await this.#target.discard(offset, this.#end - offset);
    this.#end = offset;
  }
}

function fits(run: readonly Piece[], piece: Piece): boolean {
  return piece.start + piece.length - run[0].start <= mostBytes;
}

function* withEnd(run: readonly Piece[]): Generator<RunPiece> {
  const last = run.at(-1);
  if (last === undefined) return;
  const dataEnd = last.start + last.length;
  for (const piece of run) yield { ...piece, dataEnd };
}
