/** Errors of files, as QEMU words them. */
import os from 'node:os';
import { CowherdError, errorFromErrno } from '../../errors.js';
import { describeErrno } from '../../system-errors.js';

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
  return errorFromErrno(name, message, {
    filename,
    reason,
    ...systemFailure(name, 'open', filename, cause),
  });
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
  return errorFromErrno(name, message, {
    filename,
    offset,
    reason,
    ...systemFailure(name, systemCalls[attempt], filename, cause),
  });
}

/** The system call behind what was attempted, as the messages have it. */
const systemCalls: Readonly<Record<string, string | undefined>> = {
  'read from': 'read',
  'write to': 'write',
  flush: 'fdatasync',
  resize: 'ftruncate',
  stat: 'fstat',
  lock: 'fcntl',
  close: 'close',
  'allocate space in': 'fallocate',
  'write zeroes to': 'fallocate',
  discard: 'fallocate',
  'copy to': 'copy_file_range',
};

/** What an error says of the system call that failed, as Node's own errors say it. */
function systemFailure(
  name: string,
  syscall: string | undefined,
  path: string,
  cause: unknown,
): {
  readonly errno: number | undefined;
  readonly syscall: string | undefined;
  readonly cause: unknown;
} {
  const known = (os.constants.errno as Readonly<Record<string, number | undefined>>)[name];
  const errno = known === undefined ? undefined : -known;
  const made = new Error(`${name}: ${describeErrno(name)}, ${syscall ?? 'unknown'} '${path}'`);
  return {
    errno,
    syscall,
    cause: cause ?? Object.assign(made, { code: name, errno, syscall, path }),
  };
}
