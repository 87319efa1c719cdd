/** Errors about images, worded alike in every format. */
import { CowherdError } from '../errors.js';

/** The file cannot be opened as an image: what it says contradicts the format, or a bound. */
export function invalidImage(filename: string, why: string, cause?: unknown): CowherdError {
  return new CowherdError('ERR_COWHERD_INVALID_IMAGE', `Could not open '${filename}': ${why}`, {
    filename,
    cause,
  });
}

/** The image is valid, and what it needs is not known here. */
export function unsupportedImage(filename: string, why: string): CowherdError {
  return new CowherdError('ERR_COWHERD_UNSUPPORTED', `Could not open '${filename}': ${why}`, {
    filename,
  });
}

/** The image's format has checks, and no repair. */
export function unrepairedFormat(filename: string, format: string): CowherdError {
  return new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `'${filename}': images of the ${format} format are checked, and not repaired`,
    { filename },
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
  return new CowherdError('ERR_COWHERD_CORRUPT', `'${filename}': ${why}`, {
    filename,
    offset,
    reason: 'Input/output error',
    cause,
  });
}
