/** Copying data between files of the host by the addon, one call a copy. */
import type { NativeCopyOrder } from '../../native/addon.js';
import type { CopyMemory } from '../../native/ring.js';
import type { CopiedPart, CopyOutcome, CopyRule, CopySegment, DataCopier } from '../storage.js';

/** Bytes that a thread reads and writes at a time: they stay in the cache of its processor. */
const defaultStretchBytes = 1024 * 1024;

/** A file that data can be copied into; see `FilePosix`. */
export interface NativeCopyTarget {
  copyData(
    order: NativeCopyOrder,
    segments: readonly CopySegment[],
    offset: number,
    length: number,
    sparseSize: number,
    memory: CopyMemory,
  ): Promise<void>;
}

/** See the file's comment, and `DataCopier`. */
export class NativeCopier implements DataCopier {
  readonly #file: NativeCopyTarget;
  readonly #order: NativeCopyOrder;
  readonly #rule: CopyRule;
  /** Bytes: a multiple of what is written as a whole, and of what is looked at for zeroes. */
  readonly #stretch: number;
  /** Numbers that there have to be for where a stretch is written. */
  readonly #placesOfStretch: number;
  /** Memory of copies that have ended. */
  readonly #idle: Float64Array[] = [];

  constructor(file: NativeCopyTarget, order: NativeCopyOrder, rule: CopyRule) {
    this.#file = file;
    this.#order = order;
    this.#rule = rule;
    const { granule, sparseSize, stretchBytes = defaultStretchBytes } = rule;
    const unit = leastCommonMultiple(granule || 1, sparseSize || 1);
    this.#stretch = unit * Math.max(1, Math.floor(stretchBytes / unit));
    // Room for granules may come in pieces of one each; other parts have zeroes between them.
    const most = this.#stretch / (granule > 0 ? granule : 2 * (sparseSize || this.#stretch));
    this.#placesOfStretch = 1 + 3 * (Math.ceil(most) + 1);
  }

  offer(start: number, length: number, isZero: boolean): void {
    this.#order.offer(start, length, isZero);
  }

  async copy(
    segments: readonly CopySegment[],
    offset: number,
    length: number,
  ): Promise<CopyOutcome> {
    const memory = this.#memoryFor(segments.length, Math.ceil(length / this.#stretch));
    let failure: Error | undefined;
    try {
      const { sparseSize } = this.#rule;
      await this.#file.copyData(this.#order, segments, offset, length, sparseSize, memory);
    } catch (error) {
      failure = error as Error;
    }
    const parts = this.#partsIn(memory);
    this.#idle.push(memory.numbers);
    return { parts, failure };
  }

  #partsIn({ numbers, placesAt, placesLength }: CopyMemory): CopiedPart[] {
    const parts: CopiedPart[] = [];
    for (let share = 0; share < placesLength; share += this.#placesOfStretch) {
      const stretchAt = (share / this.#placesOfStretch) * this.#stretch;
      const first = placesAt + share + 1;
      const end = first + 3 * numbers[first - 1];
      for (let index = first; index < end; index += 3) {
        const [at, length, hostOffset] = numbers.subarray(index, index + 3);
        const last = parts.at(-1);
        const isNext =
          last !== undefined &&
          last.at + last.length === stretchAt + at &&
          last.hostOffset + last.length === hostOffset;
        if (isNext) parts[parts.length - 1] = { ...last, length: last.length + length };
        else parts.push({ at: stretchAt + at, length, hostOffset });
      }
    }
    return parts;
  }

  #memoryFor(segments: number, stretches: number): CopyMemory {
    const placesAt = 1 + 3 * segments;
    const placesLength = stretches * this.#placesOfStretch;
    const size = placesAt + placesLength;
    const idle = this.#idle.pop();
    const numbers = idle !== undefined && idle.length >= size ? idle : new Float64Array(size);
    numbers[0] = this.#stretch;
    for (let at = placesAt; at < size; at += this.#placesOfStretch) numbers[at] = 0;
    return { numbers, placesAt, placesLength };
  }
}

function leastCommonMultiple(first: number, second: number): number {
  let [divisor, rest] = [first, second];
  while (rest > 0) [divisor, rest] = [rest, divisor % rest];
  return (first / divisor) * second;
}
