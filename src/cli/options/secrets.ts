/** Secrets that a command is given (`--object secret,…`), as QEMU's tools take them. */
import { createDecipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { describeErrno } from '../../system-errors.js';

/** Bytes of a key by which secrets are encrypted, and of a vector. */
const keyBytes = 32;
const vectorBytes = 16;

/** By their ids. */
export type Secrets = Readonly<Record<string, Uint8Array>>;

/** Makes the error of a secret that is refused. */
type Refuse = (why: string) => Error;

/**
 * The bytes of a secret.
 *
 * @param take takes the value of an option
 * @param others secrets that were given before
 * @throws what `refuse` makes of one that cannot be had
 */
export function readSecret(
  take: (name: string) => string | undefined,
  others: Secrets,
  refuse: Refuse,
): Uint8Array {
  const [data, file, keyid, iv] = ['data', 'file', 'keyid', 'iv'].map(take);
  const format = take('format');
  if (format !== undefined && !/^(?:raw|base64)$/.test(format)) {
    throw refuse(`Parameter 'format' does not accept value '${format}'`);
  }
  const given = givenBytes(data, file, refuse);
  const isText = format === 'base64';
  if (keyid === undefined) return isText ? decoded(given, refuse) : given;
  if (!Object.hasOwn(others, keyid)) throw refuse(`No secret with id '${keyid}'`);
  const key = others[keyid];
  if (key.length !== keyBytes) throw refuse(`Key should be ${keyBytes} bytes in length`);
  if (iv === undefined) throw refuse('IV is required to decrypt secret');
  const vector = decoded(Buffer.from(iv), refuse);
  if (vector.length !== vectorBytes) {
    throw refuse(`IV should be ${vectorBytes} bytes in length not ${vector.length}`);
  }
  return decrypted(isText ? decoded(given, refuse) : given, key, vector, refuse);
}

function givenBytes(
  data: string | undefined,
  file: string | undefined,
  refuse: Refuse,
): Uint8Array {
  if (file === undefined) {
    if (data === undefined) throw refuse("Either 'file' or 'data' must be provided");
    return Buffer.from(data);
  }
  if (data !== undefined) throw refuse("'file' and 'data' are mutually exclusive");
  try {
    return readFileSync(hostPath(file));
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    throw refuse(`Unable to read ${file}: Failed to open file “${file}”: ${describeErrno(code)}`);
  }
}

function decoded(text: Uint8Array, refuse: Refuse): Uint8Array {
  const letters = Buffer.from(text).toString('latin1');
  if (!/^[A-Za-z0-9+/=\n]*$/.test(letters)) throw refuse('Base64 data contains invalid characters');
  return Buffer.from(letters, 'base64');
}

/** What was encrypted by AES in CBC mode, its padding taken off. */
function decrypted(
  bytes: Uint8Array,
  key: Uint8Array,
  vector: Uint8Array,
  refuse: Refuse,
): Uint8Array {
  if (bytes.length % vectorBytes !== 0 || bytes.length === 0) {
    throw refuse(`Length ${bytes.length} must be a multiple of block size ${vectorBytes}`);
  }
  const decipher = createDecipheriv('aes-256-cbc', key, vector).setAutoPadding(false);
  const plain = decipher.update(bytes);
  const padding = plain[plain.length - 1];
  if (padding > vectorBytes) {
    throw refuse(`Incorrect number of padding bytes (${padding}) found on decrypted data`);
  }
  return plain.subarray(0, plain.length - padding);
}
