/** TLS of a server: its certificate, or keys that it shares with its clients. */
import { type TlsOptions as NodeOptions, createSecureContext } from 'node:tls';
import { CowherdError } from '../../errors.js';
import { type TlsCredentials, tlsReason } from '../../nbd/tls-credentials.js';

export { readTlsFolder } from '../../nbd/tls-credentials.js';

/**
 * What a server proves itself by, and its clients themselves; in PEM. Without authorities (`ca`) a client
 * needs no certificate.
 */
export type ServerTls = TlsCredentials;

/** Credentials as Node takes them. */
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
