/**
 * The one error class of the project: a stable code, the file and the offset it is about.
 * Nothing here may import another layer.
 */

/** Every code an error of this package can carry; codes are never renamed or reused. */
export type CowherdErrorCode =
  | 'ERR_COWHERD_INVALID_ARGUMENT'
  | 'ERR_COWHERD_OUT_OF_RANGE'
  | 'ERR_COWHERD_IO'
  | 'ERR_COWHERD_NOT_FOUND'
  | 'ERR_COWHERD_EXISTS'
  | 'ERR_COWHERD_ACCESS'
  | 'ERR_COWHERD_NO_SPACE'
  | 'ERR_COWHERD_NO_MEMORY'
  | 'ERR_COWHERD_LOCKED'
  | 'ERR_COWHERD_UNKNOWN_FORMAT'
  | 'ERR_COWHERD_INVALID_IMAGE'
  | 'ERR_COWHERD_CORRUPT'
  | 'ERR_COWHERD_CHECKSUM'
  | 'ERR_COWHERD_UNSUPPORTED'
  | 'ERR_COWHERD_READ_ONLY'
  | 'ERR_COWHERD_BACKING'
  | 'ERR_COWHERD_CLOSED'
  | 'ERR_COWHERD_ABORTED'
  | 'ERR_COWHERD_POISONED';

/** What was attempted. */
export type Operation =
  | 'open'
  | 'create'
  | 'load snapshot'
  | 'read'
  | 'write'
  | 'flush'
  | 'resize'
  | 'stat'
  | 'lock'
  | 'close'
  | 'allocate'
  | 'write zeroes'
  | 'discard'
  | 'copy'
  | 'name backing'
  | 'store bitmap'
  | 'copy bitmaps'
  | 'empty';

/**
 * What a file is to who asked: an image, by its content; a file as the host has it; the image below; the one that
 * is to be there.
 */
export type FileRole = 'image' | 'file' | 'backing' | 'new backing';

/** Where an error happened, as far as it is known. */
export interface CowherdErrorDetails {
  /** What failed. */
  readonly operation?: Operation | undefined;
  /** What `filename` is to who asked. */
  readonly role?: FileRole | undefined;
  /** What is wrong, alone: the message without what it is about in front. */
  readonly why?: string | undefined;
  /** Name of the file concerned, as the caller gave it. */
  readonly filename?: string | undefined;
  /** Offset in bytes: a host offset for storage and metadata errors, a guest offset for requests. */
  readonly offset?: number | undefined;
  /** Guest bytes from `offset` on that it is about, where it is about a stretch of the disk. */
  readonly length?: number | undefined;
  /** Why, in the C library's words, where that says it all: `No space left on device`. */
  readonly reason?: string | undefined;
  /** What contradicts the format, in QEMU's words. */
  readonly damage?: string | undefined;
  /** What the user can do about it, one sentence without a full stop. */
  readonly hint?: string | undefined;
  /** The error of the layer below. */
  readonly cause?: unknown;
  /** Number of the system's error, negative as in Node's own errors, where a system call failed. */
  readonly errno?: number | undefined;
  /** Name of the system call that failed. */
  readonly syscall?: string | undefined;
}

/** A name as messages quote it: its control characters are escaped, so that it keeps to its line. */
export function printable(name: string): string {
  // eslint-disable-next-line no-control-regex -- they are what is looked for
  return name.replace(/[\0-\x1f\x7f-\x9f]/g, (character) =>
    character === '\n' ? '\\n' : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

const brand = Symbol.for('cowherd.error');

/** An error of this package. Its brand survives two copies of the package in one program. */
export class CowherdError extends Error {
  readonly code: CowherdErrorCode;
  readonly operation: Operation | undefined;
  readonly role: FileRole | undefined;
  readonly why: string | undefined;
  readonly filename: string | undefined;
  readonly offset: number | undefined;
  readonly length: number | undefined;
  readonly reason: string | undefined;
  readonly damage: string | undefined;
  readonly hint: string | undefined;
  readonly errno: number | undefined;
  readonly syscall: string | undefined;
  readonly [brand] = true;

  /** @param message names the file as it is; where it has control characters they are escaped */
  constructor(code: CowherdErrorCode, message: string, details: CowherdErrorDetails = {}) {
    const { filename = '' } = details;
    const line = filename === '' ? message : message.replaceAll(filename, printable(filename));
    super(line, details.cause === undefined ? undefined : { cause: details.cause });
    // The name by which Node's own functions tell that a signal has ended them.
    this.name = code === 'ERR_COWHERD_ABORTED' ? 'AbortError' : 'CowherdError';
    this.code = code;
    this.why = details.why;
    this.filename = details.filename;
    this.offset = details.offset;
    this.length = details.length;
    // What a layer above adds does not change why.
    const below = details.cause instanceof CowherdError ? details.cause : undefined;
    this.operation = details.operation ?? below?.operation;
    this.role = details.role ?? below?.role;
    this.reason = details.reason ?? below?.reason;
    this.damage = details.damage ?? below?.damage;
    this.hint = details.hint ?? below?.hint;
    this.errno = details.errno ?? below?.errno;
    this.syscall = details.syscall ?? below?.syscall;
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value;
  }
}

/**
 * What to say of a file that cannot be opened, for what is in it or what is asked of it.
 *
 * @param why one phrase
 */
export function cannotOpen(
  code: CowherdErrorCode,
  filename: string,
  why: string,
  details: CowherdErrorDetails = {},
): CowherdError {
  const facts = { operation: 'open', role: 'image', why, filename } as const;
  return new CowherdError(code, `Could not open '${filename}': ${why}`, { ...facts, ...details });
}

/**
 * What to say of a file with which something is wrong, or of which something is asked that cannot be.
 *
 * @param why one phrase
 */
export function problemWith(
  code: CowherdErrorCode,
  filename: string,
  why: string,
  details: CowherdErrorDetails = {},
): CowherdError {
  return new CowherdError(code, `'${filename}': ${why}`, { why, filename, ...details });
}

const codeOfErrno: Readonly<Record<string, CowherdErrorCode>> = {
  ENOENT: 'ERR_COWHERD_NOT_FOUND',
  EEXIST: 'ERR_COWHERD_EXISTS',
  EACCES: 'ERR_COWHERD_ACCESS',
  EPERM: 'ERR_COWHERD_ACCESS',
  EROFS: 'ERR_COWHERD_ACCESS',
  ENOSPC: 'ERR_COWHERD_NO_SPACE',
  EDQUOT: 'ERR_COWHERD_NO_SPACE',
  ENOMEM: 'ERR_COWHERD_NO_MEMORY',
};

/**
 * The error for a failed system call.
 *
 * @param errno its symbolic name, such as `ENOSPC`
 * @param message one line naming what was attempted and why it failed
 */
export function errorFromErrno(
  errno: string,
  message: string,
  details: CowherdErrorDetails = {},
): CowherdError {
  return new CowherdError(codeOfErrno[errno] ?? 'ERR_COWHERD_IO', message, details);
}

/** V8's words for an array buffer there is no memory for; RangeErrors are thrown for much else. */
const allocationFailed = 'Array buffer allocation failed';

/**
 * What is to be thrown for an error met while a file was opened: JavaScript says by a RangeError that
 * memory could not be had, and names no file. Any other error is what it is.
 */
export function nameMemoryError(error: unknown, filename: string): unknown {
  if (!(error instanceof RangeError) || error.message !== allocationFailed) return error;
  return problemWith('ERR_COWHERD_NO_MEMORY', filename, 'Cannot allocate memory', { cause: error });
}

/** The refusal of a buffer whose memory was transferred away: it has no bytes any more. */
export function givenAway(filename: string): CowherdError {
  const why = 'Invalid buffer: its memory was given away';
  return problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
}
