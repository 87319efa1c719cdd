/** One thread of the stress run: random requests on an image that other threads work on as well. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { Image, ImageHandle, RequestTarget } from '../../src/image/api/image.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { Kind, OperationLog, sectorBytes, stamp, stampOf } from './history.js';
import { Random } from './random.js';
import type { Scenario } from './scenario.js';

/** What a thread is told. */
export interface Orders {
  readonly handle: ImageHandle;
  readonly scenario: Scenario;
  readonly thread: number;
  /** Two words: the clock of the run, and how many threads have joined the image. */
  readonly clock: Int32Array;
}

/** What a thread answers. */
export interface Report {
  readonly entries: readonly number[];
  readonly operations: number;
  /** What a lane read that only it can have written, and what it should have read. */
  readonly wrong: readonly string[];
}

class StressThread {
  readonly #orders: Orders;
  readonly #log = new OperationLog();
  readonly #wrong: string[] = [];
  #operations = 0;
  #stamps: number;
  /** What each lane is doing, for a round that stands still. */
  readonly #doing: string[] = [];
  #state = 'attaching';

  constructor(orders: Orders) {
    this.#orders = orders;
    this.#stamps = (orders.thread + 1) << 22;
  }

  async run(): Promise<Report> {
    const { handle, scenario } = this.#orders;
    const image = await attachImage(handle);
    this.#state = 'running';
    Atomics.add(this.#orders.clock, 1, 1);
    const targets: RequestTarget[] = [image];
    if (scenario.seed % 2 === 0) targets.push(await image.openQueue());
    await Promise.all(
      Array.from({ length: scenario.lanes }, (_, lane) =>
        this.#runLane(image, targets[lane % targets.length], lane),
      ),
    );
    this.#state = 'closing';
    await image.close();
    this.#state = 'closed';
    return { entries: this.#log.entries, operations: this.#operations, wrong: this.#wrong };
  }

  /** What the thread is doing, in words. */
  describe(): string {
    const lanes = this.#doing.map((what, lane) => `lane ${lane} ${what}`).join(', ');
    return `is ${this.#state}; ${lanes}; holds ${process.getActiveResourcesInfo().join(' ')}`;
  }

  async #runLane(image: Image, target: RequestTarget, lane: number): Promise<void> {
    const { scenario, thread } = this.#orders;
    const random = new Random(scenario.seed * 1000 + thread * 100 + lane);
    const own = this.#ownRegion(lane);
    /** What this lane has left in its own region; -1 where it has written nothing. */
    const known = new Float64Array(own.count).fill(-1);
    for (let step = 0; step < scenario.steps; step++) {
      this.#operations++;
      this.#doing[lane] = `at step ${step}`;
      if (random.chance(0.04)) await target.flush();
      else if (random.chance(0.3) && own.count > 0) {
        await this.#touchOwn(target, random, own.first, known);
      } else await this.#touchAny(target, image, random);
    }
    this.#doing[lane] = 'done';
  }

  /** Sectors at the end of the disk that only one lane of one thread writes. */
  #ownRegion(lane: number): { first: number; count: number } {
    const { scenario, thread } = this.#orders;
    const sectors = Math.floor(scenario.size / sectorBytes);
    const shared = Math.floor(sectors / 2);
    const lanes = scenario.threads * scenario.lanes;
    const count = Math.floor((sectors - shared) / lanes);
    return { first: shared + (thread * scenario.lanes + lane) * count, count };
  }

  async #touchOwn(
    target: RequestTarget,
    random: Random,
    first: number,
    known: Float64Array,
  ): Promise<void> {
    const at = random.below(known.length);
    const count = 1 + random.below(Math.min(this.#orders.scenario.mostSectors, known.length - at));
    if (random.chance(0.4)) {
      const buffer = new Uint8Array(count * sectorBytes);
      await target.read(buffer, (first + at) * sectorBytes);
      const words = new Uint32Array(buffer.buffer);
      for (let sector = 0; sector < count; sector++) {
        const expected = known[at + sector];
        const found = stampOf(words, sector);
        if (expected >= 0 && found !== expected) {
          this.#wrong.push(`own sector ${first + at + sector}: read ${found}, wrote ${expected}`);
        }
      }
      return;
    }
    const value = await this.#change(target, random, first + at, count);
    known.fill(value, at, at + count);
  }

  async #touchAny(target: RequestTarget, image: Image, random: Random): Promise<void> {
    const { scenario } = this.#orders;
    const shared = Math.floor(Math.floor(image.size / sectorBytes) / 2);
    const at = random.below(shared);
    const count = 1 + random.below(Math.min(scenario.mostSectors, shared - at));
    if (random.chance(0.25)) {
      await target.read(new Uint8Array(count * sectorBytes), at * sectorBytes);
    } else if (random.chance(0.2)) {
      const begun = this.#tick();
      await target.discard(at * sectorBytes, count * sectorBytes);
      this.#log.note(Kind.possible, at, count, 0, begun, this.#tick());
    } else if (scenario.options.dataFile === undefined && random.chance(0.3)) {
      await this.#compress(target, random, shared, image.clusterSize! / sectorBytes);
    } else {
      await this.#change(target, random, at, count);
    }
  }

  /** Writes a whole cluster of `count` sectors compressed, one of those before a sector. */
  async #compress(
    target: RequestTarget,
    random: Random,
    before: number,
    count: number,
  ): Promise<void> {
    const sector = random.below(Math.floor(before / count)) * count;
    const value = ++this.#stamps;
    const buffer = new Uint8Array(count * sectorBytes);
    stamp(buffer, value);
    const begun = this.#tick();
    await target.writeCompressed(buffer, sector * sectorBytes);
    this.#log.note(Kind.definite, sector, count, value, begun, this.#tick());
  }

  /** Writes or zeroes sectors. @returns the stamp they hold then */
  async #change(
    target: RequestTarget,
    random: Random,
    sector: number,
    count: number,
  ): Promise<number> {
    const zero = random.chance(0.25);
    const value = zero ? 0 : ++this.#stamps;
    const begun = this.#tick();
    if (zero) {
      const unmap = random.chance(0.5);
      await target.writeZeroes(sector * sectorBytes, count * sectorBytes, { unmap });
    } else {
      const buffer = new Uint8Array(count * sectorBytes);
      stamp(buffer, value);
      await target.write(buffer, sector * sectorBytes);
    }
    this.#log.note(Kind.definite, sector, count, value, begun, this.#tick());
    return value;
  }

  #tick(): number {
    return Atomics.add(this.#orders.clock, 0, 1);
  }
}

if (!isMainThread && workerData !== null) {
  const thread = new StressThread(workerData as Orders);
  parentPort!.on('message', () => {
    parentPort!.postMessage(thread.describe());
  });
  parentPort!.unref();
  parentPort!.postMessage(await thread.run());
}
