/**
 * The guest of a disk whose device fails: goes on after a failed request, keeps what failed and
 * when, and holds every read against what was asked before.
 */
import type { Image, RequestTarget } from '../../src/image/api/image.js';
import type { AmendOptions } from '../../src/image/api/options.js';
import type { LogClock } from '../../src/storage/filters/crash-log.js';
import type { Promises } from '../crash/promises.js';
import {
  type BitmapAction,
  type GuestDisk,
  type SnapshotAction,
  beginReturn,
  changeBitmap,
  marksOf,
} from '../crash/recording.js';
import { type Mark, fillSectors, sectorSize } from '../schedules/history.js';
import { resizeInTurn } from '../support/resize-in-turn.js';
import { markAt } from '../crash/marks.js';
import type { Random } from '../stress/random.js';

/** A request that has failed. */
export interface FailedRequest {
  readonly name: string;
  readonly error: unknown;
  readonly begun: number;
  readonly ended: number;
  /** Makes the same request again; it fails as a promise does. */
  readonly again: () => Promise<void>;
}

/** See the file's comment. */
export class FaultedDisk implements GuestDisk {
  readonly failed: FailedRequest[] = [];
  /** Requests that were made. */
  requests = 0;
  /** What reads have found that nobody wrote. */
  readonly problems: string[] = [];
  readonly queues: readonly RequestTarget[];
  readonly random: Random;
  readonly sectorsPerCluster: number;
  /** Requests by the memory they transfer. */
  readonly #owners = new Map<ArrayBufferLike, string>();
  /** What the disk showed when snapshots were taken. */
  readonly #snapshots = new Map<string, Uint32Array>();
  readonly #bitmaps = new Set<string>();
  readonly #promises: Promises;
  readonly #clock: LogClock;

  constructor(
    queues: readonly RequestTarget[],
    promises: Promises,
    clock: LogClock,
    random: Random,
    sectorsPerCluster: number,
  ) {
    this.queues = queues;
    this.random = random;
    this.sectorsPerCluster = sectorsPerCluster;
    this.#promises = promises;
    this.#clock = clock;
  }

  get sectors(): number {
    return this.#promises.sectors;
  }

  /** Reads the whole disk, except for long stretches that nobody has ever touched. */
  async readAll(): Promise<void> {
    const piece = 128;
    for (let sector = 0; sector < this.sectors; sector += piece) {
      const count = Math.min(piece, this.sectors - sector);
      if (this.#promises.touched(sector, count)) await this.read(sector, count);
    }
  }

  /** The name of the request that one of these buffers belongs to. */
  ownerOf(buffers: readonly Uint8Array[]): string | undefined {
    for (const { buffer } of buffers) {
      const owner = this.#owners.get(buffer);
      if (owner !== undefined) return owner;
    }
    return undefined;
  }

  read(sector: number, count: number, queue = 0): Promise<void> {
    const buffer = new Uint8Array(count * sectorSize);
    return this.#attempt(`read ${sector}+${count}`, buffer, async () => {
      const begun = this.#clock.tick();
      await this.queues[queue].read(buffer, sector * sectorSize);
      const ended = this.#clock.tick();
      for (let index = 0; index < count; index++) {
        const found = markAt(buffer, index * sectorSize, sector + index);
        const permitted = this.#promises.permittedTo(sector + index, begun, ended);
        if (found !== undefined && permitted.includes(found)) continue;
        this.problems.push(
          `sector ${sector + index} reads as ${found ?? 'garbage'}, not ${permitted.join(' or ')}`,
        );
        break;
      }
    });
  }

  write(sector: number, count: number, queue = 0): Promise<void> {
    const [mark, data] = this.#newData(sector, count);
    return this.#change(`write ${sector}+${count}`, data, mark, sector, count, true, () =>
      this.queues[queue].write(data, sector * sectorSize),
    );
  }

  compress(sector: number, queue = 0): Promise<void> {
    const count = this.sectorsPerCluster;
    const [mark, data] = this.#newData(sector, count);
    return this.#change(`compress ${sector}`, data, mark, sector, count, true, () =>
      this.queues[queue].writeCompressed(data, sector * sectorSize),
    );
  }

  zero(sector: number, count: number, unmap: boolean, queue = 0): Promise<void> {
    const name = `${unmap ? 'unmap' : 'zero'} ${sector}+${count}`;
    return this.#change(name, undefined, 0, sector, count, true, () =>
      this.queues[queue].writeZeroes(sector * sectorSize, count * sectorSize, { unmap }),
    );
  }

  discard(sector: number, count: number, queue = 0): Promise<void> {
    return this.#change(`discard ${sector}+${count}`, undefined, 0, sector, count, false, () =>
      this.queues[queue].discard(sector * sectorSize, count * sectorSize),
    );
  }

  flush(queue = 0): Promise<void> {
    return this.#attempt(`flush of queue ${queue}`, undefined, async () => {
      const begun = this.#clock.tick();
      await this.queues[queue].flush();
      this.#promises.noteFlush(begun);
    });
  }

  resize(sectors: number): Promise<void> {
    return this.#attempt(`resize to ${sectors}`, undefined, () =>
      resizeInTurn(this.queues[0] as Image, sectors * sectorSize),
    );
  }

  amend(options: AmendOptions): Promise<void> {
    return this.#attempt(`amend ${JSON.stringify(options)}`, undefined, () =>
      (this.queues[0] as Image).amend(options),
    );
  }

  snapshot(action: SnapshotAction, name: string): Promise<void> {
    const { snapshots } = this.queues[0] as Image;
    const marks = this.#snapshots.get(name);
    // What could not be taken cannot be gone back to.
    if (action !== 'create' && marks === undefined) return Promise.resolve();
    return this.#attempt(`${action} snapshot ${name}`, undefined, async () => {
      if (action === 'create') {
        const taken = await marksOf(this.queues[0], this.sectors);
        await snapshots.create(name);
        this.#snapshots.set(name, taken);
      } else if (action === 'delete') {
        this.#snapshots.delete(name);
        await snapshots.delete(name);
      } else {
        const changes = beginReturn(this.#promises, marks!);
        try {
          await snapshots.apply(name);
        } catch (error) {
          for (const change of changes) this.#promises.fail(change);
          // It is gone back to again later, and so has to stay.
          this.#snapshots.delete(name);
          throw error;
        }
        for (const change of changes) this.#promises.end(change);
      }
    });
  }

  bitmap(action: BitmapAction, name: string): Promise<void> {
    return this.#attempt(`${action} bitmap ${name}`, undefined, async () => {
      // What could not be added cannot be changed, and what has gone since need not be.
      if (action !== 'add' && !this.#bitmaps.has(name)) return;
      await changeBitmap(this.queues[0] as Image, action, name);
      if (action === 'add') this.#bitmaps.add(name);
      if (action === 'remove') this.#bitmaps.delete(name);
    });
  }

  #newData(sector: number, count: number): [Mark, Uint8Array] {
    const mark = this.#promises.newMark();
    return [mark, fillSectors(mark, sector, count)];
  }

  #change(
    name: string,
    buffer: Uint8Array | undefined,
    mark: Mark,
    sector: number,
    count: number,
    definite: boolean,
    request: () => Promise<void>,
  ): Promise<void> {
    return this.#attempt(name, buffer, async () => {
      const change = this.#promises.begin(mark, sector, count, definite);
      try {
        await request();
      } catch (error) {
        this.#promises.fail(change);
        throw error;
      }
      this.#promises.end(change);
    });
  }

  async #attempt(
    name: string,
    buffer: Uint8Array | undefined,
    request: () => Promise<void>,
  ): Promise<void> {
    this.requests++;
    if (buffer !== undefined) this.#owners.set(buffer.buffer, name);
    const begun = this.#clock.tick();
    try {
      await request();
    } catch (error) {
      const ended = this.#clock.tick();
      this.failed.push({ name, error, begun, ended, again: request });
    }
  }
}
