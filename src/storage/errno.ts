/** Errors of files, as QEMU words them. */
import { CowherdError, errorFromErrno } from '../errors.js';
import { describeErrno } from '../system-errors.js';

/** The error of a file that could not be opened or created, worded as qemu-img words it. */
export function openError(
  filename: string,
  name: string,
  attempt: 'open' | 'create',
  cause?: unknown,
): CowherdError {
  if (name === 'EISDIR' || name === 'ESPIPE') {
    return new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `'file' driver requires '${filename}' to be a regular file`,
      { filename, cause },
    );
  }
  const reason = describeErrno(name);
  const message = `Could not ${attempt} '${filename}': ${reason}`;
  return errorFromErrno(name, message, { filename, reason, cause });
}

/**
 * The error of an operation on an open file.
 * @param attempt what was attempted, to follow "Could not": `read from`, `flush`
 */
export function operationError(
  attempt: string,
  filename: string,
  offset: number | undefined,
  name: string,
  cause?: unknown,
): CowherdError {
  const place = offset === undefined ? '' : ` at byte ${offset}`;
  const reason = describeErrno(name);
  const message = `Could not ${attempt} '${filename}'${place}: ${reason}`;
  return errorFromErrno(name, message, { filename, offset, reason, cause });
}
