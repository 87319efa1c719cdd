/** Names and texts of system errors, as QEMU prints them (strerror(3) of the GNU C library). */
import { getSystemErrorMap, getSystemErrorName } from 'node:util';
import { CowherdError, errorFromErrno } from '../errors.js';

const texts = new Map(
  Object.entries({
    EACCES: 'Permission denied',
    EAGAIN: 'Resource temporarily unavailable',
    EBADF: 'Bad file descriptor',
    EBUSY: 'Device or resource busy',
    ECANCELED: 'Operation canceled',
    EDQUOT: 'Disk quota exceeded',
    EEXIST: 'File exists',
    EFBIG: 'File too large',
    EINVAL: 'Invalid argument',
    EIO: 'Input/output error',
    EISDIR: 'Is a directory',
    ELOOP: 'Too many levels of symbolic links',
    EMFILE: 'Too many open files',
    ENAMETOOLONG: 'File name too long',
    ENFILE: 'Too many open files in system',
    ENODEV: 'No such device',
    ENOENT: 'No such file or directory',
    ENOMEM: 'Cannot allocate memory',
    ENOSPC: 'No space left on device',
    ENOSYS: 'Function not implemented',
    ENOTDIR: 'Not a directory',
    ENXIO: 'No such device or address',
    EOPNOTSUPP: 'Operation not supported',
    EOVERFLOW: 'Value too large for defined data type',
    EPERM: 'Operation not permitted',
    EROFS: 'Read-only file system',
    ETIMEDOUT: 'Connection timed out',
    ETXTBSY: 'Text file busy',
  }),
);

/** Symbolic name, such as `ENOSPC`, of an errno as a positive or negative number. */
export function errnoName(errno: number): string {
  const name = getSystemErrorName(-Math.abs(errno));
  return name === 'ENOTSUP' ? 'EOPNOTSUPP' : name;
}

/** One line of text for an errno's symbolic name. */
export function describeErrno(name: string): string {
  const known = texts.get(name);
  if (known !== undefined) return known;
  const entry = [...getSystemErrorMap().values()].find(([systemName]) => systemName === name);
  return entry?.[1] ?? name;
}

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
