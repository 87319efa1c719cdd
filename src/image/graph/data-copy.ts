/**
 * Copying data from image to image, and comparing them, where they lie, without their passing through
 * JavaScript. For images that nobody changes, and a target that nobody else writes to.
 */
import { Counter } from '../../engine/queues/counters.js';
import type { DataCopy, FillRule } from '../../format/driver.js';
import { haveSameData } from '../../storage/same-data.js';
import type { CopiedPart, CopySegment } from '../../storage/storage.js';
import type { Image } from '../api/image.js';
import type { Extent } from '../api/reports.js';
import { OpenedImage, type PlainBytes } from './opened-image.js';

export type { CopiedPart, PlainBytes };

/** Bytes to copy: of an image, or zeroes. */
export interface DataSegment {
  readonly bytes: PlainBytes | undefined;
  /** Bytes, at least 1. */
  readonly length: number;
}

/** Whether an image can be filled by sharing the blocks of another, which copies nothing. */
export function canClone(source: Image, target: Image): boolean {
  const areOurs = source instanceof OpenedImage && target instanceof OpenedImage;
  return areOurs && target.canCloneFrom(source);
}

/** Whether guest offsets are offsets in an image's file, and nothing else is there. */
export function isFlat(image: Image): boolean {
  return image instanceof OpenedImage && image.isFlat;
}

/** Whether what was never written to a new image reads as anything. */
export function beginsAsNoise(image: Image): boolean {
  return image instanceof OpenedImage && image.disk.format.beginsAsNoise === true;
}

/** Whether an image can only be written by whole clusters, compressed. */
export function needsCompressedWrites(image: Image): boolean {
  return image instanceof OpenedImage && image.disk.format.needsCompressedWrites === true;
}

/** Ends the disk of an image that was made open-ended, at a size in bytes; it is only closed after that. */
export async function endImage(image: Image, size: number): Promise<void> {
  if (image instanceof OpenedImage) await image.endAt(size);
}

/** Where the bytes of an extent of `map` lie; undefined where they lie nowhere as they are. */
export function plainBytes(image: Image, extent: Extent): PlainBytes | undefined {
  return image instanceof OpenedImage ? image.bytesOf(extent) : undefined;
}

/** See the file's comment. */
export class ImageFiller {
  readonly #copy: DataCopy;

  private constructor(copy: DataCopy) {
    this.#copy = copy;
  }

  /**
   * A way to fill an image that holds nothing yet.
   *
   * @returns undefined where there is none
   */
  static of(image: Image, rule: FillRule): ImageFiller | undefined {
    const copy = image instanceof OpenedImage ? image.dataCopy(rule) : undefined;
    return copy && new ImageFiller(copy);
  }

  /** Bytes that are copied at once at most; copies lie within multiples of it. */
  get mostBytes(): number {
    return this.#copy.mostBytes;
  }

  /** Bytes: copies begin and end at multiples of it, or at the end of the disk. */
  get granule(): number {
    return this.#copy.granule;
  }

  /** Copies; see `DataCopy`. */
  copy(
    segments: readonly DataSegment[],
    offset: number,
    length: number,
  ): Promise<readonly CopiedPart[] | undefined> {
    return this.#copy.copy(countedPlaces(segments), offset, length);
  }
}

/**
 * Whether segments, one after the other, hold the same bytes as others.
 *
 * @param length bytes of either
 * @returns undefined where that has to be found by reading them
 */
export function sameData(
  segments: readonly DataSegment[],
  others: readonly DataSegment[],
  length: number,
): Promise<boolean | undefined> {
  return haveSameData(countedPlaces(segments), countedPlaces(others), length);
}

/** Where segments lie in files; who reads them counts it. */
function countedPlaces(segments: readonly DataSegment[]): CopySegment[] {
  return segments.map(({ bytes, length }) => {
    bytes?.counters.add(Counter.reads);
    bytes?.counters.add(Counter.bytesRead, length);
    return { file: bytes?.file, offset: bytes?.offset ?? 0, length };
  });
}
