/** How commands of the exerciser fail. */
import type { CowherdError, CowherdErrorCode } from '../../errors.js';

/** A command that failed. Where there is nothing left to say the text is empty. */
export class IoFailure extends Error {
  override readonly name = 'IoFailure';

  /**
   * @param text a whole line without its end
   * @param stream where it is said: on standard output beside the figures, or on standard error
   */
  constructor(
    readonly text = '',
    readonly stream: 'output' | 'errors' = 'output',
  ) {
    super(text);
  }
}

/** What the C library says of refusals that no system call made. */
const reasons: Partial<Readonly<Record<CowherdErrorCode, string>>> = {
  ERR_COWHERD_INVALID_ARGUMENT: 'Invalid argument',
  ERR_COWHERD_NO_SPACE: 'No space left on device',
  ERR_COWHERD_NO_MEMORY: 'Cannot allocate memory',
  ERR_COWHERD_READ_ONLY: 'Operation not permitted',
  ERR_COWHERD_UNSUPPORTED: 'Operation not supported',
};

/** Why a request failed, in the C library's words. */
export function reasonOf({ reason, code }: CowherdError): string {
  return reason ?? reasons[code] ?? 'Input/output error';
}
