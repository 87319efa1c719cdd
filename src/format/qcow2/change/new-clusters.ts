/**
 * The clusters of one change of an image: those that it takes for what it writes where nothing lies, and those
 * that it gives up once the header has come to point at the new ones.
 */
import { type HostOffset, asHostOffset } from '../layout/geometry.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import type { OwedSteps } from './owed-steps.js';

/** See the file's comment. */
export class NewClusters {
  readonly #metadata: Qcow2Metadata;
  readonly #owed: OwedSteps;
  readonly #taken = new PackedCounts(0);
  readonly #givenUp = new PackedCounts(0);
  #isEmpty = true;

  constructor(metadata: Qcow2Metadata, owed: OwedSteps) {
    this.#metadata = metadata;
    this.#owed = owed;
  }

  /** Whether the change has neither taken nor given up any. */
  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  /** Writes bytes to consecutive clusters of their own. @returns where they lie */
  async write(bytes: Uint8Array): Promise<HostOffset> {
    const { allocator, file, geometry } = this.#metadata;
    const run = await allocator.reserveWhole(geometry.clusters(bytes.length));
    this.#isEmpty = false;
    this.#taken.increment(run.cluster, run.length);
    const whole = new Uint8Array(run.length * geometry.clusterSize);
    whole.set(bytes);
    const hostOffset = geometry.startOf(run.cluster);
    await file.write(whole, hostOffset);
    return hostOffset;
  }

  /** Makes what was written durable, and the counts of its clusters. */
  async flush(): Promise<void> {
    const { allocator, file, flushOrder } = this.#metadata;
    await allocator.checkAll(this.#givenUp, -1);
    await flushOrder.flushAll();
    await file.flush();
  }

  /** Takes note of bytes whose clusters are given up at the end; at host offset 0 nothing was. */
  giveUp(hostOffset: number, length: number): void {
    if (hostOffset === 0 || length === 0) return;
    const { geometry } = this.#metadata;
    this.#isEmpty = false;
    this.#givenUp.increment(
      geometry.clusterAt(asHostOffset(hostOffset)),
      geometry.clusters(length),
    );
  }

  /** Runs the change; if it fails, nothing has come to point at the new clusters, and they are given back. */
  async during<Result>(change: () => Promise<Result>): Promise<Result> {
    const { allocator } = this.#metadata;
    try {
      return await change();
    } catch (error) {
      await this.#owed.later(async () => {
        await allocator.changeAll(this.#taken, -1);
      });
      throw error;
    }
  }

  /** Gives up what nothing points at any more; the host gets its blocks, if it takes them. */
  async end(): Promise<void> {
    const { allocator, file, geometry } = this.#metadata;
    await this.#owed.later(async () => {
      const freed = await allocator.changeAll(this.#givenUp, -1);
      for (const { cluster, length } of freed) {
        const bytes = length * geometry.clusterSize;
        // Later it could hit what has come to lie there.
        await file.discard(geometry.startOf(cluster), bytes).catch(() => undefined);
      }
    });
  }
}
