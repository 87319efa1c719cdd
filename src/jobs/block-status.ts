/** How a disk is stored, as jobs walk it: failures tell where, or are got over. */
import { CowherdError } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { Extent } from '../image/api/reports.js';

const sectorBytes = 512;
const brand = Symbol('cowherd.blockStatus');

/** It cannot be told how an image stores its disk from a guest offset on. */
export class BlockStatusError extends CowherdError {
  readonly [brand] = true;

  /** @param image the one that was walked; what failed may be one below it */
  constructor(image: Image, offset: number, length: number, cause: CowherdError) {
    const details = { filename: image.filename, offset, length, cause };
    super(cause.code, cause.message, details);
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value;
  }
}

/**
 * The extents of an image from a guest offset on, for so many bytes.
 *
 * @throws BlockStatusError after those that lie before what cannot be told; the signal's reason
 */
export async function* blockStatus(
  image: Image,
  signal: AbortSignal | undefined,
  from = 0,
  bytes = image.size - from,
): AsyncGenerator<Extent> {
  let next = from;
  try {
    for await (const extent of image.map({
      offset: from,
      length: bytes,
      ...(signal !== undefined && { signal }),
    })) {
      yield extent;
      next = extent.start + extent.length;
    }
  } catch (error) {
    if (signal?.aborted === true || !(error instanceof CowherdError)) throw error;
    const length = Math.min(error.length ?? sectorBytes, image.size - next);
    throw new BlockStatusError(image, next, length, error);
  }
}

/**
 * The extents of an image, all of it: where it cannot be told how something is stored, it is worth
 * an attempt to read it.
 *
 * @param onFailure told of each stretch for which that is so
 */
export async function* salvagedStatus(
  image: Image,
  signal: AbortSignal | undefined,
  onFailure: (failure: CowherdError) => void,
): AsyncGenerator<Extent> {
  let most = image.size;
  for (let next = 0; next < image.size;) {
    const asked = Math.min(most, image.size - next);
    try {
      for await (const extent of blockStatus(image, signal, next, asked)) {
        yield extent;
        next = extent.start + extent.length;
      }
      most = image.size;
    } catch (error) {
      if (!(error instanceof BlockStatusError)) throw error;
      const known = (error.cause as CowherdError).length;
      if (known === undefined && asked > sectorBytes) {
        // What lies before the failure may be told if that is not asked for.
        most = Math.ceil(asked / 4 / sectorBytes) * sectorBytes;
        continue;
      }
      const length = Math.max(sectorBytes, known ?? 0);
      onFailure(error);
      const unknown = { depth: 0, present: true, zero: false, data: true, compressed: false };
      yield { start: next, length: Math.min(length, image.size - next), ...unknown };
      next += length;
      most = image.size;
    }
  }
}
