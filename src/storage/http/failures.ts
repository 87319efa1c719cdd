/** What can go wrong between a file of a web server and its reader. */
import { CowherdError, type CowherdErrorCode, printable, cannotOpen } from '../../errors.js';

/** A failure that another attempt may not meet. */
export class TransientFailure extends Error {
  /** @param waitMs how long the server asks to wait before the next attempt */
  constructor(
    message: string,
    readonly waitMs = 0,
  ) {
    super(message);
  }
}

/** The error of a file that cannot be opened. */
export function cannotOpenUrl(
  filename: string,
  why: string,
  code: CowherdErrorCode = 'ERR_COWHERD_IO',
  cause?: unknown,
): CowherdError {
  const reason = printable(why);
  return cannotOpen(code, filename, reason, { role: 'file', reason, cause });
}

/** The error of a file that cannot be read any further. */
export function cannotRead(
  filename: string,
  offset: number,
  why: string,
  code: CowherdErrorCode = 'ERR_COWHERD_IO',
  cause?: unknown,
): CowherdError {
  const reason = printable(why);
  const message = `Could not read from '${filename}' at byte ${offset}: ${reason}`;
  return new CowherdError(code, message, {
    operation: 'read',
    role: 'file',
    filename,
    offset,
    reason,
    cause,
  });
}

/** A refusal by the server that another attempt would meet too. */
export class Refusal extends Error {
  constructor(
    readonly code: CowherdErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** What an answer that brings no data means. */
export function failureOf(status: number, text: string, retryAfter: string | undefined): Error {
  const answer = `the server answered ${status}${text === '' ? '' : ` ${text}`}`;
  if (status === 408 || status === 429 || status >= 500) {
    const seconds = Number(retryAfter ?? 0);
    return new TransientFailure(answer, Number.isFinite(seconds) ? seconds * 1000 : 0);
  }
  if (status === 404 || status === 410) return new Refusal('ERR_COWHERD_NOT_FOUND', answer);
  if (status === 401 || status === 403 || status === 407) {
    return new Refusal('ERR_COWHERD_ACCESS', answer);
  }
  return new Refusal('ERR_COWHERD_IO', answer);
}
