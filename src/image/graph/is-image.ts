/** Telling an image that is open from the name of one. */
import type { Image } from '../api/image.js';

/** Whether it is an open image, of whichever copy of this package. */
export function isImage(given: unknown): given is Image {
  return typeof given === 'object' && given !== null && 'map' in given && 'openQueue' in given;
}
