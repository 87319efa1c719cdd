/** Ending a stream by a signal, with an error of this package. */
import type { Readable, Writable } from 'node:stream';
import type { AbortSignalLike } from '../../abort-signal.js';
import { CowherdError } from '../../errors.js';

/** Destroys the stream with ERR_COWHERD_ABORTED when the signal aborts, or at once if it has. */
export function destroyOnAbort(
  stream: Readable | Writable,
  signal: AbortSignalLike | undefined,
  filename: string,
): void {
  if (signal === undefined) return;
  const abort = (): void => {
    const message = `A stream of '${filename}' was aborted`;
    const details = { filename, cause: signal.reason as unknown };
    stream.destroy(new CowherdError('ERR_COWHERD_ABORTED', message, details));
  };
  if (signal.aborted) {
    abort();
    return;
  }
  signal.addEventListener('abort', abort);
  stream.once('close', () => {
    signal.removeEventListener('abort', abort);
  });
}
