/** Hearing of an open image that its disk has got another size. */
import type { Image } from '../api/image.js';
import { OpenedImage } from './opened-image.js';

/** Has `action` run when `image.resize` has ended, by this object. @returns what undoes that */
export function onResized(image: Image, action: () => void): () => void {
  return image instanceof OpenedImage ? image.onResized(action) : () => undefined;
}
