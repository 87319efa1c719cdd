/** Finding where a read of many bytes failed, for a message that names the guest offset. */
import { CowherdError } from '../errors.js';

/** Bytes that are read at a time to find the first failure. */
const locatedBytes = 4096;

/**
 * The failure of a read, told with the first guest offset that fails by itself.
 *
 * @param read reads a part of what failed again
 */
export async function locateReadFailure(
  failure: unknown,
  offset: number,
  length: number,
  read: (part: Uint8Array, offset: number) => Promise<void>,
): Promise<unknown> {
  if (!(failure instanceof CowherdError)) return failure;
  const part = new Uint8Array(locatedBytes);
  for (let done = 0; done < length; done += locatedBytes) {
    const wanted = part.subarray(0, Math.min(locatedBytes, length - done));
    try {
      await read(wanted, offset + done);
    } catch (error) {
      if (!(error instanceof CowherdError)) return error;
      const details = { filename: error.filename, offset: offset + done, cause: error };
      return new CowherdError(error.code, error.message, details);
    }
  }
  return failure;
}
