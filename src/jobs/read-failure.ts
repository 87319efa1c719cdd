/** Finding what of a range cannot be read, where a read of all of it failed. */
import { CowherdError } from '../errors.js';

const sectorBytes = 512;

/** Reads a part of what failed again, into the buffer. */
export type ReadAgain = (part: Uint8Array, offset: number) => Promise<void>;

/**
 * The failure of a read, told with the guest offset of the first sector that fails by itself.
 *
 * @param data what was to be filled; on return its bytes up to that sector are
 */
export async function locateReadFailure(
  failure: unknown,
  offset: number,
  data: Uint8Array,
  read: ReadAgain,
): Promise<unknown> {
  if (!(failure instanceof CowherdError)) return failure;
  for await (const { at, error } of badSectors(failure, offset, data, read)) {
    if (!(error instanceof CowherdError)) return error;
    const details = { filename: error.filename, offset: offset + at, cause: error };
    return new CowherdError(error.code, error.message, details);
  }
  // All of it can be read now; nothing says where it failed before.
  const { code, message, filename } = failure;
  return new CowherdError(code, message, { filename, offset, cause: failure });
}

/**
 * Reads what can be read of a range, in the larger parts the more there is.
 *
 * @returns the sectors that cannot be read, in order, each with its failure; they are zeroes then
 */
export async function* badSectors(
  failure: unknown,
  offset: number,
  data: Uint8Array,
  read: ReadAgain,
  at = 0,
): AsyncGenerator<{ readonly at: number; readonly length: number; readonly error: unknown }> {
  if (data.length <= sectorBytes) {
    data.fill(0);
    yield { at, length: data.length, error: failure };
    return;
  }
  const half = Math.ceil(data.length / 2 / sectorBytes) * sectorBytes;
  for (const [from, to] of [
    [0, half],
    [half, data.length],
  ]) {
    const part = data.subarray(from, to);
    let error: unknown;
    try {
      await read(part, offset + from);
    } catch (reason) {
      error = reason;
    }
    if (error !== undefined) yield* badSectors(error, offset + from, part, read, at + from);
  }
}
