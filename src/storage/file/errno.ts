/** Errors of files, as QEMU words them. */
import os from 'node:os';
import { CowherdError, type Operation, errorFromErrno } from '../../errors.js';
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
    operation: attempt,
    role: 'file',
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
  const { syscall, operation } = attempts[attempt] ?? {};
  return errorFromErrno(name, message, {
    operation,
    role: 'file',
    filename,
    offset,
    reason,
    ...systemFailure(name, syscall, filename, cause),
  });
}

/** What was attempted, as the messages have it, and the system call behind it. */
const attempts: Readonly<
  Record<string, { readonly operation: Operation; readonly syscall: string } | undefined>
> = {
  'read from': { operation: 'read', syscall: 'read' },
  'write to': { operation: 'write', syscall: 'write' },
  flush: { operation: 'flush', syscall: 'fdatasync' },
  resize: { operation: 'resize', syscall: 'ftruncate' },
  stat: { operation: 'stat', syscall: 'fstat' },
  lock: { operation: 'lock', syscall: 'fcntl' },
  close: { operation: 'close', syscall: 'close' },
  'allocate space in': { operation: 'allocate', syscall: 'fallocate' },
  'write zeroes to': { operation: 'write zeroes', syscall: 'fallocate' },
  discard: { operation: 'discard', syscall: 'fallocate' },
  'copy to': { operation: 'copy', syscall: 'copy_file_range' },
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
