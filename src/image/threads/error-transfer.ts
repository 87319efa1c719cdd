/** Errors on their way from one thread to another, which would lose what makes them ours. */
import { CowherdError, type CowherdErrorCode, type CowherdErrorDetails } from '../../errors.js';

/** An error as a message; structured-cloneable. */
export interface ErrorMessage {
  /** Undefined for an error of another kind. */
  readonly code: CowherdErrorCode | undefined;
  readonly message: string;
  readonly details: Omit<CowherdErrorDetails, 'cause'>;
}

/** The message that tells of an error. */
export function describeError(error: unknown): ErrorMessage {
  if (error instanceof CowherdError) {
    const { code, message, operation, role, why, filename, offset, length } = error;
    const { reason, damage, hint, errno, syscall } = error;
    const what = { operation, role, why, filename, offset, length };
    return { code, message, details: { ...what, reason, damage, hint, errno, syscall } };
  }
  return {
    code: undefined,
    message: error instanceof Error ? error.message : String(error),
    details: {},
  };
}

/** The error that a message tells of. */
export function reviveError({ code, message, details }: ErrorMessage): Error {
  return code === undefined ? new Error(message) : new CowherdError(code, message, details);
}
