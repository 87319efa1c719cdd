/** How exports of NBD servers are used. */
import type { OpenOption } from './open-option.js';

/** See the file's comment. */
export interface NbdOptions {
  /**
   * Seconds for which a server that has gone is looked for again: requests under way are sent once more.
   * Default 10; 0 fails them at once.
   */
  readonly reconnectSeconds?: number | undefined;
  /**
   * Folder with the credentials of TLS as QEMU has them: `ca-cert.pem`, and the client's own certificate if
   * it has one (`client-cert.pem`, `client-key.pem`), or `keys.psk`. Connections are then secured; those to
   * `nbds://` are in any case, by the authorities that Node knows if no folder is given.
   */
  readonly tlsCredentials?: string | undefined;
  /** The name that the server's certificate has to have; default the host's, `localhost` of a Unix socket. */
  readonly tlsHostname?: string | undefined;
  /** Whose key of `keys.psk`; default `qemu`, or the only one. */
  readonly tlsUsername?: string | undefined;
}

/** The same by QEMU's names. */
export const nbdOpenOptions: readonly OpenOption[] = [
  {
    name: 'reconnect-delay',
    type: 'seconds',
    key: 'nbd.reconnectSeconds',
    help: 'seconds for which a server that has gone is looked for again',
  },
  {
    name: 'tls-creds',
    type: 'text',
    key: 'nbd.tlsCredentials',
    help: 'the folder with the credentials of TLS',
  },
  {
    name: 'tls-hostname',
    type: 'text',
    key: 'nbd.tlsHostname',
    help: "the name that the server's certificate has to have",
  },
  {
    name: 'tls-username',
    type: 'text',
    key: 'nbd.tlsUsername',
    help: 'whose shared key is used',
  },
];
