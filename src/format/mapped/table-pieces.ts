/** Reading whole tables of an image, however large, a piece at a time, and changing entries on the way. */
import type { StorageFile } from '../../storage/storage.js';

/** Bytes of a piece. */
const pieceBytes = 1024 * 1024;
/** Bytes of the largest entry of a table; others divide it. */
const entryBytes = 8;
/** Bytes that are written as a whole. */
const sectorSize = 512;

/** A piece of a table. */
export class TablePiece {
  readonly #file: StorageFile;
  readonly #offset: number;
  /** What was changed of the piece, in bytes from its begin. */
  #changedFrom = Infinity;
  #changedTo = 0;

  /**
   * @param at where in the table it begins, in bytes
   * @param view its bytes
   * @param offset of it in the file, in bytes
   */
  constructor(
    readonly at: number,
    readonly view: DataView,
    file: StorageFile,
    offset: number,
  ) {
    this.#file = file;
    this.#offset = offset;
  }

  /** Takes note that an entry was changed in `view`. @param at in the view, in bytes, as `length` is */
  changed(at: number, length: number): void {
    this.#changedFrom = Math.min(this.#changedFrom, at);
    this.#changedTo = Math.max(this.#changedTo, at + length);
  }

  /** Writes what was changed, and what is between, in whole sectors; makes nothing durable. */
  async write(): Promise<void> {
    if (this.#changedTo === 0) return;
    const { buffer, byteOffset, byteLength } = this.view;
    const down = (place: number): number => Math.floor(place / sectorSize) * sectorSize;
    const from = Math.max(0, down(this.#offset + this.#changedFrom) - this.#offset);
    const end = down(this.#offset + this.#changedTo + sectorSize - 1) - this.#offset;
    const bytes = new Uint8Array(buffer, byteOffset + from, Math.min(end, byteLength) - from);
    await this.#file.write(bytes, this.#offset + from);
    this.#changedFrom = Infinity;
    this.#changedTo = 0;
  }
}

/**
 * The pieces of a table one after the other, each to be done with before the next is asked for. What lies
 * beyond the end of the file is zeroes.
 *
 * @param offset host offset in bytes
 * @param length bytes, whole entries of 4 or 8 bytes
 * @param skipsHoles whether what the host knows as holes is left out: entries of 0 mean nothing then, and a
 *   sparse file takes no longer than its data
 */
export async function* tablePieces(
  file: StorageFile,
  offset: number,
  length: number,
  { skipsHoles = false }: { readonly skipsHoles?: boolean } = {},
): AsyncGenerator<TablePiece> {
  const bytes = new Uint8Array(Math.min(length, pieceBytes));
  for (let at = 0; at < length;) {
    const left = length - at;
    if (skipsHoles) {
      const { data, length: same } = await file.status(offset + at, left);
      const skipped = data ? 0 : same >= left ? left : Math.floor(same / entryBytes) * entryBytes;
      at += skipped;
      if (skipped > 0) continue;
    }
    const part = bytes.subarray(0, left);
    await file.read(part, offset + at);
    yield new TablePiece(at, new DataView(part.buffer, 0, part.length), file, offset + at);
    at += part.length;
  }
}
