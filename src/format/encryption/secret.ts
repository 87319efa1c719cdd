/** Secrets as those who have to know them give them. */
import { isUtf8 } from 'node:buffer';
import { type CowherdError, cannotOpen, problemWith } from '../../errors.js';
import { invalidImage } from '../failures.js';

/** What an image is opened with, or made with, whose disk is encrypted. */
export interface GivenSecret {
  /** What it is called, where it has a name. */
  readonly keySecret?: string | undefined;
  /** Undefined where there is no secret of that name. */
  readonly secret?: Uint8Array | string | undefined;
}

/** What makes an error of why a secret cannot be used. */
export type Refuse = (why: string) => CowherdError;

/** The refusal to open an image. */
export function refusingToOpen(filename: string): Refuse {
  return (why) => cannotOpen('ERR_COWHERD_ACCESS', filename, why);
}

/** The refusal of a change. */
export function refusingChange(filename: string): Refuse {
  return (why) => problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
}

/** The refusal of a header that is none. */
export function refusingImage(filename: string): Refuse {
  return (why) => invalidImage(filename, why);
}

/**
 * The password that a secret is, which is text. It is a copy, for whoever asks to forget.
 *
 * @param prefix what stands in front of the option's name where it is missing
 * @throws what `refuse` makes of a secret that is missing, or no text
 */
export function passwordOf(
  given: GivenSecret | undefined,
  prefix: string,
  refuse: Refuse,
): Uint8Array {
  const { keySecret, secret } = given ?? {};
  if (secret === undefined) {
    if (keySecret === undefined) {
      throw refuse(`Parameter '${prefix}key-secret' is required for cipher`);
    }
    throw refuse(`No secret with id '${keySecret}'`);
  }
  const bytes =
    typeof secret === 'string' ? new TextEncoder().encode(secret) : new Uint8Array(secret);
  // Text with a byte of zero is none to those who go by it.
  if (isUtf8(bytes) && !bytes.includes(0)) return bytes;
  throw refuse(`Data from secret ${keySecret ?? 'given'} is not valid UTF-8`);
}
