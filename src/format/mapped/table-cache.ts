/**
 * Pieces of an image's tables that are remembered for a while, so that looking up where guest data lie
 * reads the file once, however large the tables are. For tables that nobody else changes; what is changed
 * here is taken from time to time, and written.
 */
import type { StorageFile } from '../../storage/storage.js';
import type { TableChanges } from './mapping.js';

/** Bytes of a piece. */
const pieceBytes = 64 * 1024;
/** Pieces that are remembered: 8 MiB. */
const pieces = 128;
/** Bytes that are written as a whole. */
const sectorSize = 512;

/** The tables of one image on one thread. */
export class TableCache {
  readonly #file: StorageFile;
  /** By number of the piece in the file, the one used longest ago first. */
  readonly #pieces = new Map<number, DataView>();
  readonly #loading = new Map<number, Promise<DataView>>();
  /** Sectors that were changed and not written since, by their piece. */
  readonly #changed = new Map<number, Set<number>>();
  /** Pieces with changes on their way to the file, which does not have them yet. */
  #taken: ReadonlySet<number> = new Set();
  #last = -1;
  #lastView: DataView | undefined;

  constructor(file: StorageFile) {
    this.#file = file;
  }

  /**
   * The bytes of the file from a host offset on: a view that begins there and ends with its piece, of at
   * least one byte. What lies beyond the end of the file is zeroes. An entry that may lie across the
   * boundary of two pieces, of 64 KiB each, has to be asked for by `read`.
   */
  view(offset: number): DataView | Promise<DataView> {
    const number = Math.floor(offset / pieceBytes);
    const within = offset - number * pieceBytes;
    if (number === this.#last) return from(this.#lastView!, within);
    const piece = this.#pieces.get(number);
    if (piece === undefined) return this.#load(number).then((loaded) => from(loaded, within));
    this.#pieces.delete(number);
    this.#remember(number, piece);
    return from(piece, within);
  }

  /** Bytes of the file, wherever they lie. */
  async read(offset: number, length: number): Promise<DataView> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const { buffer, byteOffset, byteLength } = await this.view(offset + done);
      const part = Math.min(byteLength, length - done);
      bytes.set(new Uint8Array(buffer, byteOffset, part), done);
      done += part;
    }
    return new DataView(bytes.buffer);
  }

  /**
   * Changes bytes of the tables that lie within one piece.
   *
   * @param length of what is changed, in bytes
   * @param change gets a view that begins at the host offset and ends with its piece
   */
  async edit(offset: number, length: number, change: (view: DataView) => void): Promise<void> {
    const number = Math.floor(offset / pieceBytes);
    for (;;) {
      const view = await this.view(offset);
      // It may have been forgotten in between.
      if (this.#pieces.get(number)?.buffer !== view.buffer) continue;
      const first = Math.floor((offset % pieceBytes) / sectorSize);
      const last = Math.floor(((offset % pieceBytes) + length - 1) / sectorSize);
      const sectors = this.#changed.get(number) ?? new Set();
      for (let sector = first; sector <= last; sector++) sectors.add(sector);
      this.#changed.set(number, sectors);
      change(view);
      return;
    }
  }

  /** The sectors that were changed, as they are now; undefined if there are none. */
  takeChanges(): TableChanges | undefined {
    if (this.#changed.size === 0) return undefined;
    const taken = [...this.#changed].sort(([one], [other]) => one - other);
    this.#changed.clear();
    this.#taken = new Set(taken.map(([number]) => number));
    // What is changed from now on is written the next time, when its data are durable.
    const writes = taken.flatMap(([number, sectors]) => {
      const piece = new Uint8Array(this.#pieces.get(number)!.buffer);
      return runsOf(sectors).map(([first, count]) => {
        const start = first * sectorSize;
        const bytes = piece.slice(start, start + count * sectorSize);
        return { bytes, offset: number * pieceBytes + start };
      });
    });
    return {
      write: async () => {
        for (const { bytes, offset } of writes) await this.#file.write(bytes, offset);
      },
      end: (isDurable) => {
        this.#taken = new Set();
        if (isDurable) return;
        for (const [number, sectors] of taken) {
          this.#changed.set(number, new Set([...sectors, ...(this.#changed.get(number) ?? [])]));
        }
      },
    };
  }

  #load(number: number): Promise<DataView> {
    let loading = this.#loading.get(number);
    if (loading === undefined) {
      loading = this.#readPiece(number);
      this.#loading.set(number, loading);
    }
    return loading;
  }

  async #readPiece(number: number): Promise<DataView> {
    try {
      const bytes = new Uint8Array(pieceBytes);
      await this.#file.read(bytes, number * pieceBytes);
      const view = new DataView(bytes.buffer);
      this.#remember(number, view);
      return view;
    } finally {
      this.#loading.delete(number);
    }
  }

  #remember(number: number, view: DataView): void {
    this.#pieces.set(number, view);
    this.#last = number;
    this.#lastView = view;
    for (const oldest of this.#pieces.keys()) {
      if (this.#pieces.size <= pieces + this.#changed.size + this.#taken.size) break;
      const isNeeded = this.#changed.has(oldest) || this.#taken.has(oldest);
      if (!isNeeded) this.#pieces.delete(oldest);
    }
  }
}

function from({ buffer }: DataView, within: number): DataView {
  return within === 0 ? new DataView(buffer) : new DataView(buffer, within);
}

/** Numbers as runs of those that follow one another: the first of each, and how many they are. */
function runsOf(numbers: ReadonlySet<number>): [first: number, count: number][] {
  const runs: [first: number, count: number][] = [];
  for (const number of [...numbers].sort((one, other) => one - other)) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === number) last[1] += 1;
    else runs.push([number, 1]);
  }
  return runs;
}
