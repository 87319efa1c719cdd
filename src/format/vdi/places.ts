/**
 * Which places of a VDI file blocks have. The header counts them, and other programs give that number out as
 * the next place: so places that were lost, by a power cut or a write that failed, are given out again first.
 */
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import { tablePieces } from '../mapped/table-pieces.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import { type VdiHeader, vdiBlockBytes } from './header.js';
import { vdiDiscarded, vdiEntryBytes } from './mapping.js';

/** Places that follow one another. */
export interface PlaceRun {
  readonly first: number;
  readonly count: number;
  /** Whether something may lie there. */
  readonly isReused: boolean;
}

/** See the file's comment. */
export class VdiPlaces {
  readonly #used: UsedClusters;
  readonly #places: number;
  readonly #filename: string;
  /** Below it all are in use. */
  #lowest = 0;
  /** From here on none is in use. */
  #end = 0;
  /** From here on nothing lies anywhere. */
  #clean: number;

  private constructor(places: number, clean: number, filename: string) {
    this.#used = UsedClusters.of(places)!;
    this.#places = places;
    this.#clean = clean;
    this.#filename = filename;
  }

  /** Reads the whole map. */
  static async read(file: StorageFile, header: VdiHeader): Promise<VdiPlaces> {
    const { blocks, mapOffset, dataOffset } = header;
    const data = Math.max(0, (await file.size()) - dataOffset);
    const places = new VdiPlaces(blocks, Math.ceil(data / vdiBlockBytes), file.filename);
    for await (const { view } of tablePieces(file, mapOffset, blocks * vdiEntryBytes)) {
      for (let at = 0; at < view.byteLength; at += vdiEntryBytes) {
        const place = view.getUint32(at, true);
        if (place < vdiDiscarded && place < blocks) places.#take(place);
      }
    }
    return places;
  }

  /** One more than the highest place in use. */
  get end(): number {
    return this.#end;
  }

  /** Gives out places, the lowest ones that are free. @param most at most so many */
  give(most: number): PlaceRun {
    const used = this.#used;
    while (this.#lowest < this.#end && used.has(this.#lowest)) this.#lowest += 1;
    const first = this.#lowest;
    if (first >= this.#places) throw damagedImage(this.#filename, 'no block is free any more');
    let next = first;
    while (next < first + most && next < this.#places && !used.has(next)) this.#take(next++);
    this.#lowest = next;
    const isReused = first < this.#clean;
    this.#clean = Math.max(this.#clean, next);
    return { first, count: next - first, isReused };
  }

  /** Takes places back that no entry of the map names. */
  takeBack({ first, count }: Pick<PlaceRun, 'first' | 'count'>): void {
    for (let place = first; place < first + count; place += 1) this.#used.giveBack(place);
    this.#lowest = Math.min(this.#lowest, first);
    while (this.#end > 0 && !this.#used.has(this.#end - 1)) this.#end -= 1;
  }

  #take(place: number): void {
    this.#used.take(place);
    this.#end = Math.max(this.#end, place + 1);
  }
}
