/**
 * Reading compressed clusters: whole ones straight to where they are wanted, of others a part, from what
 * is remembered of them.
 */
import { ControlWord } from '../../../engine/words/control-block.js';
import type { ControlWords } from '../../../engine/words/control-words.js';
import type { BufferPool } from '../../../engine/buffer-pool.js';
import { CowherdError, givenAway, problemWith } from '../../../errors.js';
import type { Codec } from '../../../native/codec.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { HostOffset } from '../layout/geometry.js';
import { compressedBuffers } from './compressed-buffers.js';
import type { ImageCodec } from './image-codec.js';
import { type Inflate, InflatedClusters, describeCluster } from './inflated-clusters.js';

/** One queue's reader of compressed clusters. */
export class CompressedReader {
  readonly #file: StorageFile;
  readonly #clusterSize: number;
  readonly #control: ControlWords;
  readonly #codec: ImageCodec;
  readonly #inflated: InflatedClusters;
  /** For compressed data on their way in. */
  #buffers: BufferPool | undefined;
  #generation: number;

  constructor(file: StorageFile, clusterSize: number, control: ControlWords, codec: ImageCodec) {
    this.#file = file;
    this.#clusterSize = clusterSize;
    this.#control = control;
    this.#codec = codec;
    const inflate: Inflate = (...cluster) => this.#inflate(...cluster);
    this.#inflated = new InflatedClusters(clusterSize, inflate, control.watchdog);
    this.#generation = control.load(ControlWord.compressedGeneration);
  }

  /**
   * Copies part of a compressed cluster into `target`.
   *
   * @param hostOffset where its data begin, in bytes
   * @param size bytes that its data may span
   * @param within where in the cluster the wanted part begins, in bytes
   */
  async read(
    hostOffset: HostOffset,
    size: number,
    within: number,
    target: Uint8Array,
  ): Promise<void> {
    if (within === 0 && target.length === this.#clusterSize) {
      await this.#inflate(hostOffset, size, target);
      return;
    }
    this.#forgetReclaimed();
    await this.#inflated.read(hostOffset, size, within, target);
  }

  /** Reclaimed host clusters may hold other data by now. */
  #forgetReclaimed(): void {
    const generation = this.#control.load(ControlWord.compressedGeneration);
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#inflated.clear();
  }

  async #inflate(hostOffset: HostOffset, size: number, cluster: Uint8Array): Promise<void> {
    const buffers = (this.#buffers ??= compressedBuffers(
      this.#clusterSize,
      this.#control.watchdog,
    ));
    const buffer = await buffers.lend(() => describeCluster(hostOffset));
    // What did not shrink can take a little more than a cluster.
    const data = size <= buffer.length ? buffer.subarray(0, size) : new Uint8Array(size);
    try {
      await this.#file.read(data, hostOffset);
      await this.#decompress(this.#codec.current, data, cluster, hostOffset);
    } finally {
      buffers.giveBack(buffer);
    }
  }

  async #decompress(
    codec: Codec,
    data: Uint8Array,
    cluster: Uint8Array,
    hostOffset: HostOffset,
  ): Promise<void> {
    try {
      await codec.decompress(data, cluster);
    } catch (error) {
      const { filename } = this.#file;
      if (cluster.length === 0) throw givenAway(filename);
      const code = error instanceof CowherdError ? error.code : 'ERR_COWHERD_CORRUPT';
      throw problemWith(
        code,
        filename,
        `compressed cluster at host offset ${hostOffset} cannot be decompressed`,
        { offset: hostOffset, cause: error },
      );
    }
  }
}
