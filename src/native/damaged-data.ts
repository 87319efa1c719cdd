/** What is said of compressed data that cannot be decompressed. */
import { CowherdError } from '../errors.js';

/** The failure of a decompression. @param cause what the library said */
export function damagedData(cause?: unknown): CowherdError {
  return new CowherdError('ERR_COWHERD_CORRUPT', 'compressed data is damaged', { cause });
}
