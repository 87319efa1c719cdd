/** TLS of a server: its certificate, or keys that it shares with its clients. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type TlsOptions as NodeOptions, createSecureContext } from 'node:tls';
import { CowherdError } from '../../errors.js';
import { describeErrno } from '../../system-errors.js';

/** What a server proves itself by, and its clients themselves; in PEM. */
export interface ServerTls {
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Authorities that have to have signed the certificate of a client; without any, a client needs none. */
  readonly ca?: string | undefined;
  /** Keys that are shared with clients, by the client's name, as hexadecimal digits; instead of certificates. */
  readonly psk?: Readonly<Record<string, string>> | undefined;
}

/**
 * Reads a folder of credentials as QEMU has them: `server-cert.pem` and `server-key.pem`, with
 * `ca-cert.pem` that clients are held to; or `keys.psk`.
 *
 * @throws CowherdError naming the file that cannot be read
 */
export async function readTlsFolder(folder: string): Promise<ServerTls> {
  const keys = await readOptional(path.join(folder, 'keys.psk'));
  if (keys !== undefined) return { psk: parseKeys(keys, path.join(folder, 'keys.psk')) };
  return {
    cert: await readNeeded(path.join(folder, 'server-cert.pem')),
    key: await readNeeded(path.join(folder, 'server-key.pem')),
    ca: await readOptional(path.join(folder, 'ca-cert.pem')),
  };
}

/** The same, as Node takes it. */
export function nodeTlsOptions({ cert, key, ca, psk }: ServerTls): NodeOptions {
  if (psk !== undefined) {
    return {
      ciphers: 'PSK',
      maxVersion: 'TLSv1.2',
      pskCallback: (_socket, identity) =>
        Object.hasOwn(psk, identity) ? Buffer.from(psk[identity], 'hex') : null,
    };
  }
  const held = { requestCert: true, rejectUnauthorized: true };
  return {
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(ca !== undefined && { ca, ...held }),
  };
}

/** Refuses certificates and keys that are none. @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT */
export function checkTls(tls: ServerTls): void {
  const isWhole = tls.psk !== undefined || (tls.cert !== undefined && tls.key !== undefined);
  try {
    if (!isWhole) throw new Error('a certificate with its key, or shared keys are expected');
    createSecureContext(nodeTlsOptions(tls));
  } catch (error) {
    const message = `Invalid credentials for TLS: ${tlsReason(error as Error)}`;
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { cause: error });
  }
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
