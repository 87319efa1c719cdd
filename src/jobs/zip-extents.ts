/** Walks the extents of two images side by side. */
import type { Image } from '../image/api/image.js';
import type { Extent } from '../image/api/reports.js';
import { blockStatus } from './block-status.js';

/** A guest range within which neither image's state changes. */
export interface ExtentPair {
  /** Guest offset in bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** The extent the range lies in; undefined beyond the end of the image. */
  readonly a: Extent | undefined;
  readonly b: Extent | undefined;
}

/**
 * Pairs that cover the longer of two images, ascending.
 *
 * @throws BlockStatusError after the pairs before what cannot be told
 */
export async function* zipExtents(
  a: Image,
  b: Image,
  signal?: AbortSignal,
): AsyncGenerator<ExtentPair> {
  const walkA = new Walk(blockStatus(a, signal));
  const walkB = new Walk(blockStatus(b, signal));
  try {
    const size = Math.max(a.size, b.size);
    let offset = 0;
    while (offset < size) {
      const extentA = await walkA.at(offset);
      const extentB = await walkB.at(offset);
      const end = Math.min(endOf(extentA, size), endOf(extentB, size));
      yield { offset, length: end - offset, a: extentA, b: extentB };
      offset = end;
    }
  } finally {
    await walkA.end();
    await walkB.end();
  }
}

function endOf(extent: Extent | undefined, size: number): number {
  return extent === undefined ? size : extent.start + extent.length;
}

/** The extents of one image, asked for by ascending offsets. */
export class Walk {
  readonly #iterator: AsyncIterator<Extent>;
  #current: Extent | undefined;
  #done = false;

  constructor(extents: AsyncIterable<Extent>) {
    this.#iterator = extents[Symbol.asyncIterator]();
  }

  /** The extent that holds an offset, or undefined where there is none any more. */
  async at(offset: number): Promise<Extent | undefined> {
    while (!this.#done && (this.#current === undefined || endOf(this.#current, 0) <= offset)) {
      const next = await this.#iterator.next();
      this.#done = next.done === true;
      this.#current = this.#done ? undefined : (next.value as Extent);
    }
    return this.#current;
  }

  async end(): Promise<void> {
    await this.#iterator.return?.();
  }
}
