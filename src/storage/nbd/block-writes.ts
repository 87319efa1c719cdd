/** Writes where a server takes whole blocks only: what is changed in part is read before. */
import { Semaphore } from 'async-mutex';

/** Writes of whole blocks that run side by side at most. */
const most = 1024;

/** See the file's comment. All writers of an export have to share one. */
export class BlockWrites {
  readonly #blockBytes: number;
  readonly #turns = new Semaphore(most);

  /** @param blockBytes a power of two */
  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
  }

  /**
   * Writes bytes, and what else is in their blocks again. While a block is changed in part nothing else is
   * written.
   *
   * @param read fills a buffer with whole blocks from an offset on
   * @param write writes whole blocks
   */
  async write(
    bytes: Uint8Array,
    offset: number,
    read: (bytes: Uint8Array, offset: number) => Promise<void>,
    write: (bytes: Uint8Array, offset: number) => Promise<void>,
  ): Promise<void> {
    const block = this.#blockBytes;
    const begin = offset - (offset % block);
    const end = Math.ceil((offset + bytes.length) / block) * block;
    const isWhole = begin === offset && end === offset + bytes.length;
    if (isWhole) {
      await this.#turns.runExclusive(() => write(bytes, offset));
      return;
    }
    await this.#turns.runExclusive(async () => {
      const whole = new Uint8Array(end - begin);
      await read(whole.subarray(0, block), begin);
      if (end - begin > block) await read(whole.subarray(-block), end - block);
      whole.set(bytes, offset - begin);
      await write(whole, begin);
    }, most);
  }
}
