/** How work on an image that a signal has ended is told of. */
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

/** The same for what is found one by one. */
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
