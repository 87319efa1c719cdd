/** How long operations are cancelled and observed. */
import type { AbortSignalLike } from '../../abort-signal.js';

export type { AbortSignalLike } from '../../abort-signal.js';

/** Cancels and observes a long operation. */
export interface LongOperationOptions {
  readonly signal?: AbortSignalLike | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** How far a long operation is. */
export interface Progress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}
