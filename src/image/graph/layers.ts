/** What images of a chain hold themselves, and that one of them holds nothing any more. */
import { problemWith } from '../../errors.js';
import type { AbortSignalLike } from '../../abort-signal.js';
import type { Image } from '../api/image.js';
import type { Extent } from '../api/reports.js';
import { OpenedImage } from './opened-image.js';

/**
 * How the disk is stored in an image and those below it.
 *
 * @param count how many images of the chain, of which each but the last stands on the next
 */
export function extentsOfLayers(
  image: Image,
  count: number,
  signal: AbortSignalLike | undefined,
): AsyncIterable<Extent> {
  return opened(image).layers(count, signal);
}

/** Gives up all that an image holds, durably, so that what lies below it shows; it is only closed after that. */
export function emptyImage(image: Image): Promise<void> {
  return opened(image).empty();
}

function opened(image: Image): OpenedImage {
  if (image instanceof OpenedImage) return image;
  throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', image.filename, 'the image is of another kind');
}
