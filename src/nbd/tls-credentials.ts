/** Credentials of either side of TLS, as QEMU has them in a folder: certificates, or keys that both sides share. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { CowherdError } from '../errors.js';
import { describeErrno } from '../system-errors.js';

/** What a side proves itself by, and the other side to it; in PEM. */
export interface TlsCredentials {
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Authorities that have to have signed the certificate of the other side. */
  readonly ca?: string | undefined;
  /** Keys that both sides share, by the client's name, as hexadecimal digits; instead of certificates. */
  readonly psk?: Readonly<Record<string, string>> | undefined;
}

/**
 * Reads a folder of credentials: `keys.psk`; or else `ca-cert.pem` with `server-cert.pem` and
 * `server-key.pem`, which a server needs, or with `client-cert.pem` and `client-key.pem`, which a client may have.
 *
 * @throws CowherdError naming the file that cannot be read
 */
export async function readTlsFolder(
  folder: string,
  side: 'server' | 'client' = 'server',
): Promise<TlsCredentials> {
  const inFolder = (name: string): string => path.join(folder, name);
  const keys = await readOptional(inFolder('keys.psk'));
  if (keys !== undefined) return { psk: parseKeys(keys, inFolder('keys.psk')) };
  if (side === 'server') {
    return {
      cert: await readNeeded(inFolder('server-cert.pem')),
      key: await readNeeded(inFolder('server-key.pem')),
      ca: await readOptional(inFolder('ca-cert.pem')),
    };
  }
  const cert = await readOptional(inFolder('client-cert.pem'));
  return {
    ca: await readNeeded(inFolder('ca-cert.pem')),
    ...(cert !== undefined && { cert, key: await readNeeded(inFolder('client-key.pem')) }),
  };
}

/** Why TLS failed, without what OpenSSL says around it. */
export function tlsReason(error: Error): string {
  const { reason } = error as { readonly reason?: string };
  return reason ?? error.message;
}

/** Lines of `NAME:HEX`. */
function parseKeys(text: string, file: string): Record<string, string> {
  const keys: Record<string, string> = {};
  if (text.trim() === '') {
    const message = `Could not read '${file}': there is no key in it`;
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: file });
  }
  for (const line of text.split('\n').filter((each) => each.trim() !== '')) {
    const match = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(line.trim());
    if (match === null) {
      const message = `Could not read '${file}': a line is not NAME:KEY, with hexadecimal digits`;
      throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: file });
    }
    keys[match[1]] = match[2];
  }
  return keys;
}

async function readNeeded(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const reason = describeErrno((error as NodeJS.ErrnoException).code ?? '');
    const message = `Could not read '${file}': ${reason}`;
    throw new CowherdError('ERR_COWHERD_IO', message, { filename: file, reason, cause: error });
  }
}

async function readOptional(file: string): Promise<string | undefined> {
  return await readNeeded(file).catch((error: unknown) => {
    const { cause } = error as { cause?: NodeJS.ErrnoException };
    if (cause?.code === 'ENOENT') return undefined;
    throw error;
  });
}
