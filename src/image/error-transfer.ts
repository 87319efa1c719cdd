/** Errors on their way from one thread to another, which would lose what makes them ours. */
import { CowherdError, type CowherdErrorCode } from '../errors.js';

/** An error as a message; structured-cloneable. */
export interface ErrorMessage {
  /** Undefined for an error of another kind. */
  readonly code: CowherdErrorCode | undefined;
  readonly message: string;
  readonly filename: string | undefined;
  readonly offset: number | undefined;
}

/** The message that tells of an error. */
export function describeError(error: unknown): ErrorMessage {
  if (error instanceof CowherdError) {
    const { code, message, filename, offset } = error;
    return { code, message, filename, offset };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: undefined, message, filename: undefined, offset: undefined };
}

/** The error that a message tells of. */
export function reviveError({ code, message, filename, offset }: ErrorMessage): Error {
  if (code === undefined) return new Error(message);
  return new CowherdError(code, message, { filename, offset });
}
