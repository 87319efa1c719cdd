/** Copying data between files of the host by the addon, one call a copy. */
import type { NativeCopyOrder } from '../native/addon.js';
import type { FilePosix } from './file-posix.js';
import type { CopiedPart, CopyOutcome, CopyRule, CopySegment, DataCopier } from './storage.js';

/** See the file's comment, and `DataCopier`. */
export class NativeCopier implements DataCopier {
  readonly #file: FilePosix;
  readonly #order: NativeCopyOrder;
  readonly #rule: CopyRule;
  /** Memory of copies that have ended. */
  readonly #idle: Float64Array[] = [];

  constructor(file: FilePosix, order: NativeCopyOrder, rule: CopyRule) {
    this.#file = file;
    this.#order = order;
    this.#rule = rule;
  }

  offer(start: number, length: number, isZero: boolean): void {
    this.#order.offer(start, length, isZero);
  }

  async copy(
    segments: readonly CopySegment[],
    offset: number,
    length: number,
  ): Promise<CopyOutcome> {
    const placesAt = segments.length * 3;
    const memory = this.#memoryFor(placesAt, length);
    let failure: Error | undefined;
    try {
      const { sparseSize } = this.#rule;
      const order = this.#order;
      await this.#file.copyData(order, segments, offset, length, sparseSize, memory, placesAt);
    } catch (error) {
      failure = error as Error;
    }
    const parts: CopiedPart[] = [];
    const end = placesAt + 1 + 3 * memory[placesAt];
    for (let index = placesAt + 1; index < end; index += 3) {
      const hostOffset = memory[index + 2];
      parts.push({ at: memory[index], length: memory[index + 1], hostOffset });
    }
    this.#idle.push(memory);
    return { parts, failure };
  }

  /** Memory with room for so many numbers, and for every part that so many bytes can be written in. */
  #memoryFor(placesAt: number, length: number): Float64Array {
    // Room for granules may come in pieces of one each; other parts have zeroes between them.
    const { granule, sparseSize } = this.#rule;
    const most = granule > 0 ? length / granule : length / (2 * (sparseSize || length));
    const size = placesAt + 1 + 3 * (Math.ceil(most) + 1);
    const idle = this.#idle.pop();
    const memory = idle !== undefined && idle.length >= size ? idle : new Float64Array(size);
    memory[placesAt] = 0;
    return memory;
  }
}
