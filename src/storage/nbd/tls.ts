/** TLS of a client. */
import { type Socket, isIP } from 'node:net';
import { type TLSSocket, connect } from 'node:tls';
import { type TlsCredentials, tlsReason } from '../../nbd/tls-credentials.js';

/** How a client proves itself, and what it holds the server to. */
export interface ClientTls extends TlsCredentials {
  /** The name that the server's certificate has to have, if that is not the host's. */
  readonly hostname?: string | undefined;
  /** Whose key of those that are shared, `qemu` by default, or the only one. */
  readonly username?: string | undefined;
}

/**
 * Secures a connection.
 *
 * @param host the server's
 * @throws Error saying why that cannot be, in a few words
 */
export async function secure(socket: Socket, tls: ClientTls, host: string): Promise<TLSSocket> {
  const name = tls.hostname ?? host;
  const secured = connect({
    socket,
    host: name,
    ...(isIP(name) === 0 && { servername: name }),
    ...(tls.psk === undefined ? certificatesOf(tls) : keyOf(tls.psk, tls.username)),
  });
  await new Promise<void>((resolve, reject) => {
    secured.once('secureConnect', resolve);
    secured.once('error', (error: Error) => {
      reject(new Error(`TLS failed: ${tlsReason(error)}`, { cause: error }));
    });
  });
  return secured;
}

function certificatesOf({ ca, cert, key }: ClientTls): object {
  return {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  };
}

function keyOf(psk: Readonly<Record<string, string>>, username: string | undefined): object {
  const names = Object.keys(psk);
  const identity = username ?? (names.length === 1 ? names[0] : 'qemu');
  if (!Object.hasOwn(psk, identity)) throw new Error(`there is no key of '${identity}'`);
  return {
    ciphers: 'PSK',
    maxVersion: 'TLSv1.2',
    // The key is what the server is known by.
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ identity, psk: Buffer.from(psk[identity], 'hex') }),
  };
}
