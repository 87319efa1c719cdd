/** Errors about images, worded alike in every format. */
import { type CowherdError, cannotOpen, problemWith } from '../errors.js';

/** The file cannot be opened as an image: what it says contradicts the format, or a bound. */
export function invalidImage(filename: string, why: string, cause?: unknown): CowherdError {
  return cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, why, { cause });
}

/** The image is valid, and what it needs is not known here. */
export function unsupportedImage(filename: string, why: string): CowherdError {
  return cannotOpen('ERR_COWHERD_UNSUPPORTED', filename, why);
}

/** The image's format has checks, and no repair. */
export function unrepairedFormat(filename: string, format: string): CowherdError {
  return problemWith(
    'ERR_COWHERD_UNSUPPORTED',
    filename,
    `images of the ${format} format are checked, and not repaired`,
  );
}

/**
 * A table or compressed data of an open image is damaged.
 *
 * @param offset host offset in bytes
 */
export function damagedImage(
  filename: string,
  why: string,
  offset?: number,
  cause?: unknown,
): CowherdError {
  return problemWith('ERR_COWHERD_CORRUPT', filename, why, {
    offset,
    reason: 'Input/output error',
    cause,
  });
}
