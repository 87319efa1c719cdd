/**
 * What was asked of a disk, and when, on the log's clock: from that, what each sector may show after
 * a power cut. A sector is written as a whole or not at all.
 */
import type { LogClock } from '../../src/storage/filters/crash-log.js';
import type { Mark } from '../schedules/history.js';

/** A change of consecutive guest sectors. */
export interface GuestChange {
  readonly mark: Mark;
  readonly sector: number;
  readonly count: number;
  /** Whether it is bound to have happened once it has ended; a discard, or what failed, is not. */
  definite: boolean;
  readonly begun: number;
  ended: number;
}

/** See the file's comment. */
export class Promises {
  readonly sectors: number;
  /** What each sector shows at first. */
  readonly initial: Uint32Array;
  /** Flushes that have succeeded. */
  readonly flushes: { readonly begun: number; readonly ended: number }[] = [];
  readonly #clock: LogClock;
  readonly #changes = new Map<number, GuestChange[]>();
  #marks: number;

  /** @param marks the highest mark in use */
  constructor(clock: LogClock, initial: Uint32Array, marks: number) {
    this.#clock = clock;
    this.initial = initial;
    this.sectors = initial.length;
    this.#marks = marks;
  }

  /** A mark that nothing has yet. */
  newMark(): Mark {
    return ++this.#marks;
  }

  begin(mark: Mark, sector: number, count: number, definite: boolean): GuestChange {
    const begun = this.#clock.tick();
    const change = { mark, sector, count, definite, begun, ended: Infinity };
    for (let index = sector; index < sector + count; index++) {
      const changes = this.#changes.get(index);
      if (changes === undefined) this.#changes.set(index, [change]);
      else changes.push(change);
    }
    return change;
  }

  end(change: GuestChange): void {
    change.ended = this.#clock.tick();
  }

  /** Notes that a change has ended without success: it may have happened, wholly, partly or not. */
  fail(change: GuestChange): void {
    change.definite = false;
    change.ended = this.#clock.tick();
  }

  /** Whether consecutive sectors show anything at first, or were to be changed. */
  touched(sector: number, count: number): boolean {
    for (let index = sector; index < sector + count; index++) {
      if (this.initial[index] !== 0 || this.#changes.has(index)) return true;
    }
    return false;
  }

  noteFlush(begun: number): void {
    this.flushes.push({ begun, ended: this.#clock.tick() });
  }

  /** Whatever had ended at this time is durable at `time`. */
  flushedAt(time: number): number {
    let flushed = 0;
    for (const { begun, ended } of this.flushes) {
      if (ended <= time) flushed = Math.max(flushed, begun);
    }
    return flushed;
  }

  /** The marks that each sector may show after a power cut. */
  permittedAt(time: number): readonly (readonly Mark[])[] {
    const flushed = this.flushedAt(time);
    const permitted = Array.from(this.initial, (mark) => [mark]);
    for (const [sector, changes] of this.#changes) {
      permitted[sector] = this.#permitted(this.initial[sector], changes, time, flushed);
    }
    return permitted;
  }

  /** The marks that a read of a sector may find that began and ended at these times. */
  permittedTo(sector: number, begun: number, ended: number): readonly Mark[] {
    const changes = this.#changes.get(sector) ?? [];
    return this.#permitted(this.initial[sector], changes, ended, begun);
  }

  #permitted(
    initial: Mark,
    changes: readonly GuestChange[],
    time: number,
    flushed: number,
  ): Mark[] {
    const durable = changes.filter(({ definite, ended }) => definite && ended <= flushed);
    const marks = durable.length === 0 ? [initial] : [];
    for (const { mark, begun, ended } of changes) {
      if (begun > time || durable.some((later) => later.begun > ended)) continue;
      if (!marks.includes(mark)) marks.push(mark);
    }
    return marks;
  }
}
