/**
 * Inflated clusters that are remembered for a while, for reads of parts of them: what is read at the same
 * time is inflated once, and all of them never take more than their share of memory.
 */
import { BufferPool } from '../../../engine/buffer-pool.js';
import type { Watchdog } from '../../../engine/words/watchdog.js';
import type { HostOffset } from '../layout/geometry.js';

/** Bytes of inflated clusters that one queue remembers; at least two clusters. */
const rememberedBytes = 4 * 1024 * 1024;

/** One cluster. */
class Inflated {
  /** Who waits for it, or copies from it. */
  readers = 0;
  /** Whether it is among those that are found again. */
  remembered = true;
  /** Whether its bytes are there, or have failed to come. */
  hasEnded = false;
  /** Its memory, once it has any. */
  memory: Uint8Array | undefined;
  /** Resolves with its bytes. */
  readonly bytes: Promise<Uint8Array>;

  constructor(fill: (cluster: Inflated) => Promise<Uint8Array>) {
    this.bytes = fill(this);
  }
}

/** Inflates the cluster whose data begin at a host offset, and span so many bytes, into memory. */
export type Inflate = (hostOffset: HostOffset, size: number, into: Uint8Array) => Promise<void>;

/** A compressed cluster in words, for whoever waits for it. */
export function describeCluster(hostOffset: HostOffset): string {
  return `the compressed cluster at host offset ${hostOffset}`;
}

/** One queue's inflated clusters. */
export class InflatedClusters {
  readonly #inflate: Inflate;
  readonly #watchdog: Watchdog | undefined;
  readonly #memory: BufferPool;
  /** By host offset, oldest first. */
  readonly #clusters = new Map<HostOffset, Inflated>();

  /** @param watchdog hears of waits that last for what another request inflates, or for memory */
  constructor(clusterSize: number, inflate: Inflate, watchdog?: Watchdog) {
    this.#inflate = inflate;
    this.#watchdog = watchdog;
    const most = Math.max(2, rememberedBytes / clusterSize);
    this.#memory = new BufferPool(clusterSize, most, watchdog);
  }

  /** Forgets all of them: what lies at their places may be something else by now. */
  clear(): void {
    for (const [hostOffset, cluster] of this.#clusters) this.#forget(hostOffset, cluster);
  }

  /**
   * Copies part of a cluster into `target`.
   *
   * @param within where in the cluster it begins, in bytes
   */
  async read(
    hostOffset: HostOffset,
    size: number,
    within: number,
    target: Uint8Array,
  ): Promise<void> {
    const known = this.#clusters.get(hostOffset);
    const cluster = known ?? this.#begin(hostOffset, size);
    cluster.readers += 1;
    try {
      const bytes =
        known === undefined || known.hasEnded ? cluster.bytes : this.#watched(known, hostOffset);
      target.set((await bytes).subarray(within, within + target.length));
    } finally {
      cluster.readers -= 1;
      if (cluster.remembered && this.#memory.isAwaited) this.#forgetOldest();
      this.#release(cluster);
    }
  }

  #watched({ bytes }: Inflated, hostOffset: HostOffset): Promise<Uint8Array> {
    const describe = (): string => `${describeCluster(hostOffset)}, which another request reads`;
    return this.#watchdog?.watch(bytes, describe) ?? bytes;
  }

  #begin(hostOffset: HostOffset, size: number): Inflated {
    if (this.#memory.isAllLent) this.#forgetOldest();
    const cluster = new Inflated((begun) => this.#fill(hostOffset, size, begun));
    this.#clusters.set(hostOffset, cluster);
    return cluster;
  }

  async #fill(hostOffset: HostOffset, size: number, cluster: Inflated): Promise<Uint8Array> {
    try {
      const memory = await this.#memory.lend(() => describeCluster(hostOffset));
      cluster.memory = memory;
      await this.#inflate(hostOffset, size, memory);
      return memory;
    } catch (error) {
      // The next reader tries again; those of this one hear of it, and the last gives the memory back.
      if (cluster.remembered) this.#forget(hostOffset, cluster);
      throw error;
    } finally {
      cluster.hasEnded = true;
    }
  }

  /** Forgets the oldest that nobody reads, if there is one. */
  #forgetOldest(): void {
    for (const [hostOffset, cluster] of this.#clusters) {
      if (cluster.readers > 0) continue;
      this.#forget(hostOffset, cluster);
      return;
    }
  }

  #forget(hostOffset: HostOffset, cluster: Inflated): void {
    this.#clusters.delete(hostOffset);
    cluster.remembered = false;
    this.#release(cluster);
  }

  /** Gives a cluster's memory back if nobody needs it any more. */
  #release(cluster: Inflated): void {
    if (cluster.readers > 0 || cluster.remembered || cluster.memory === undefined) return;
    this.#memory.giveBack(cluster.memory);
    cluster.memory = undefined;
  }
}
