/**
 * What was asked of a disk, and when: from that, which writes a sector may show. Requests that
 * overlap in time may have happened in either order; one that began after another had ended may not
 * have happened before it.
 */

/** Bytes of a sector, the unit that is written as a whole. */
export const sectorSize = 512;

/** Identifies what wrote a sector; 0 is what reads as zeroes. */
export type Mark = number;

/** The mark of sectors that only a backing file holds. */
export const backingMark: Mark = 1;

/** A change of consecutive sectors. */
export interface Change {
  readonly mark: Mark;
  readonly sector: number;
  readonly count: number;
  /** Whether it is bound to have happened once it has ended; a discard, or what failed, is not. */
  definite: boolean;
  readonly begun: number;
  ended: number;
}

/** A time in the history: only earlier and later mean anything. */
export type Moment = number;

const always: Moment = Number.POSITIVE_INFINITY;

/** Everything asked of one disk. */
export class History {
  readonly #backedSectors: number;
  readonly #changes: Change[] = [];
  #now = 0;
  #marks = backingMark;
  /** The last flush that has succeeded began at this time. */
  #flushed = 0;

  /** @param backedSectors how many sectors a backing file holds, from the first one on */
  constructor(backedSectors: number) {
    this.#backedSectors = backedSectors;
  }

  /** An independent copy. */
  clone(): History {
    const copy = new History(this.#backedSectors);
    copy.#changes.push(...this.#changes.map((change) => ({ ...change })));
    copy.#now = this.#now;
    copy.#marks = this.#marks;
    copy.#flushed = this.#flushed;
    return copy;
  }

  /** The next moment. */
  now(): Moment {
    return ++this.#now;
  }

  /** When the last flush began that has succeeded: what had ended then is durable. */
  get flushed(): Moment {
    return this.#flushed;
  }

  /** Notes that a flush which began at a moment has succeeded. */
  noteFlush(begun: Moment): void {
    this.#flushed = Math.max(this.#flushed, begun);
  }

  /** A mark that nothing has yet. */
  newMark(): Mark {
    return ++this.#marks;
  }

  /** Notes that a change begins. */
  begin(mark: Mark, sector: number, count: number, definite: boolean): Change {
    const begun = this.now();
    const change = { mark, sector, count, definite, begun, ended: always };
    this.#changes.push(change);
    return change;
  }

  /** Notes that it ended. One that failed may have happened or not. */
  end(change: Change, succeeded: boolean): void {
    change.ended = this.now();
    if (!succeeded) change.definite = false;
  }

  /** What a read of a sector may have found that began and ended at these moments. */
  permitted(sector: number, begun: Moment, ended: Moment): ReadonlySet<Mark> {
    return this.#notReplaced(
      sector,
      (change) => change.begun <= ended,
      (change) => change.ended <= begun,
    );
  }

  /** What a sector may read as for good, once everything has ended. */
  finally(sector: number): ReadonlySet<Mark> {
    return this.permitted(sector, this.#now, this.#now);
  }

  /**
   * What a sector may read as after a power cut now, or undefined where nothing is promised: it was
   * being written, or had been since the last flush.
   */
  afterPowerCut(sector: number): ReadonlySet<Mark> | undefined {
    const flushed = this.#flushed;
    const recent = this.#touching(sector).some((change) => change.ended > flushed);
    return recent ? undefined : this.permitted(sector, flushed, flushed);
  }

  /** Every sector that was touched. */
  touched(): readonly number[] {
    const sectors = new Set<number>();
    for (let sector = 0; sector < this.#backedSectors; sector++) sectors.add(sector);
    for (const { sector, count } of this.#changes) {
      for (let index = 0; index < count; index++) sectors.add(sector + index);
    }
    return [...sectors].sort((a, b) => a - b);
  }

  #touching(sector: number): readonly Change[] {
    return this.#changes.filter(
      (change) => sector >= change.sector && sector < change.sector + change.count,
    );
  }

  #notReplaced(
    sector: number,
    mayShow: (change: Change) => boolean,
    hasHappened: (change: Change) => boolean,
  ): ReadonlySet<Mark> {
    const changes = this.#touching(sector);
    const done = changes.filter((change) => change.definite && hasHappened(change));
    const marks = new Set<Mark>();
    if (done.length === 0) marks.add(sector < this.#backedSectors ? backingMark : 0);
    for (const change of changes) {
      if (!mayShow(change)) continue;
      if (!done.some((later) => later.begun > change.ended)) marks.add(change.mark);
    }
    return marks;
  }
}

/** Fills sectors with a mark, each telling where it belongs. */
export function fillSectors(mark: Mark, sector: number, count: number): Uint8Array {
  const words = new Uint32Array((count * sectorSize) / 4);
  const perSector = sectorSize / 4;
  if (mark !== 0) {
    for (let index = 0; index < words.length; index += 2) {
      words[index] = mark;
      words[index + 1] = sector + Math.floor(index / perSector) + 1;
    }
  }
  return new Uint8Array(words.buffer);
}

/** The mark of a sector's bytes, or undefined if they are none, or belong elsewhere. */
export function markOf(bytes: Uint8Array, sector: number): Mark | undefined {
  const mark = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const expected = fillSectors(mark, sector, 1);
  return Buffer.compare(bytes, expected) === 0 ? mark : undefined;
}
