/**
 * Reading compressed clusters. Each is inflated once and remembered for a while, and concurrent
 * reads of one cluster share the work.
 */
import type { AtomicMemory } from '../../engine/atomic-memory.js';
import { ControlWord } from '../../engine/control-block.js';
import { BufferPool } from '../../engine/buffer-pool.js';
import { CowherdError } from '../../errors.js';
import { type Codec, codecFor } from '../../native/codec.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CompressionType } from './header.js';

/** Bytes of inflated clusters that one queue remembers; at least two clusters. */
const rememberedBytes = 4 * 1024 * 1024;

/** One queue's reader of compressed clusters. */
export class CompressedReader {
  readonly #file: StorageFile;
  readonly #clusterSize: number;
  readonly #control: AtomicMemory;
  readonly #type: CompressionType;
  readonly #limit: number;
  /** For compressed data on their way in. */
  readonly #buffers: BufferPool;
  readonly #clusters = new Map<number, Promise<Uint8Array>>();
  #codec: Codec | undefined;
  #generation: number;

  constructor(
    file: StorageFile,
    clusterSize: number,
    control: AtomicMemory,
    type: CompressionType,
  ) {
    this.#file = file;
    this.#clusterSize = clusterSize;
    this.#control = control;
    this.#type = type;
    this.#limit = Math.max(2, rememberedBytes / clusterSize);
    this.#buffers = new BufferPool(clusterSize, this.#limit);
    this.#generation = control.load(ControlWord.compressedGeneration);
  }

  /**
   * Copies part of a compressed cluster into `target`.
   *
   * @param hostOffset where its data begin, in bytes
   * @param size bytes that its data may span
   * @param within where in the cluster the wanted part begins, in bytes
   */
  async read(hostOffset: number, size: number, within: number, target: Uint8Array): Promise<void> {
    if (within === 0 && target.length === this.#clusterSize) {
      await this.#inflateInto(hostOffset, size, target);
      return;
    }
    this.#forgetReclaimed();
    let cluster = this.#clusters.get(hostOffset);
    if (cluster === undefined) {
      cluster = this.#inflate(hostOffset, size);
      this.#remember(hostOffset, cluster);
    }
    target.set((await cluster).subarray(within, within + target.length));
  }

  /** Reclaimed host clusters may hold other data by now. */
  #forgetReclaimed(): void {
    const generation = this.#control.load(ControlWord.compressedGeneration);
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#clusters.clear();
  }

  #remember(hostOffset: number, cluster: Promise<Uint8Array>): void {
    for (const oldest of this.#clusters.keys()) {
      if (this.#clusters.size < this.#limit) break;
      this.#clusters.delete(oldest);
    }
    this.#clusters.set(hostOffset, cluster);
    cluster.catch(() => this.#clusters.delete(hostOffset));
  }

  async #inflate(hostOffset: number, size: number): Promise<Uint8Array> {
    const cluster = new Uint8Array(this.#clusterSize);
    await this.#inflateInto(hostOffset, size, cluster);
    return cluster;
  }

  async #inflateInto(hostOffset: number, size: number, cluster: Uint8Array): Promise<void> {
    this.#codec ??= codecFor(this.#type);
    const buffer = size <= this.#clusterSize ? this.#buffers.lend() : new Uint8Array(size);
    const data = buffer.subarray(0, size);
    try {
      await this.#file.read(data, hostOffset);
      await this.#decompress(this.#codec, data, cluster, hostOffset);
    } finally {
      if (size <= this.#clusterSize) this.#buffers.giveBack(buffer);
    }
  }

  async #decompress(
    codec: Codec,
    data: Uint8Array,
    cluster: Uint8Array,
    hostOffset: number,
  ): Promise<void> {
    try {
      await codec.decompress(data, cluster);
    } catch (error) {
      const { filename } = this.#file;
      const code = error instanceof CowherdError ? error.code : 'ERR_COWHERD_CORRUPT';
      throw new CowherdError(
        code,
        `'${filename}': compressed cluster at host offset ${hostOffset} cannot be decompressed`,
        { filename, offset: hostOffset, cause: error },
      );
    }
  }
}
