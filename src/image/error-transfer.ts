/** Errors on their way from one thread to another, which would lose what makes them ours. */
import { CowherdError, type CowherdErrorCode } from '../errors.js';

/** An error as a message; structured-cloneable. */
export interface ErrorMessage {
  /** Undefined for an error of another kind. */
  readonly code: CowherdErrorCode | undefined;
  readonly message: string;
  readonly filename: string | undefined;
  readonly offset: number | undefined;
  readonly errno: number | undefined;
  readonly syscall: string | undefined;
}

/** The message that tells of an error. */
export function describeError(error: unknown): ErrorMessage {
  if (error instanceof CowherdError) {
    const { code, message, filename, offset, errno, syscall } = error;
    return { code, message, filename, offset, errno, syscall };
  }
  const message = error instanceof Error ? error.message : String(error);
  const unknown = { filename: undefined, offset: undefined, errno: undefined, syscall: undefined };
  return { code: undefined, message, ...unknown };
}

/** The error that a message tells of. */
export function reviveError({ code, message, ...details }: ErrorMessage): Error {
  if (code === undefined) return new Error(message);
  return new CowherdError(code, message, details);
}
