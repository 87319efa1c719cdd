/** Errors of work on an image that a signal may have ended. */
import { CowherdError } from '../../errors.js';

/** What to throw for an error of work that a signal may have ended. */
export function abortedOr(
  error: unknown,
  filename: string,
  signal: AbortSignal | undefined,
): unknown {
  if (signal?.aborted !== true) return error;
  const message = `Work on '${filename}' was cancelled`;
  return new CowherdError('ERR_COWHERD_ABORTED', message, { filename, cause: signal.reason });
}

/** Extents of which the last may never come, because a signal has ended the work. */
export async function* orAborted<Found>(
  filename: string,
  signal: AbortSignal | undefined,
  extents: AsyncIterable<Found>,
): AsyncGenerator<Found> {
  try {
    yield* extents;
  } catch (error) {
    throw abortedOr(error, filename, signal);
  }
}
