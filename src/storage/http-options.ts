/** How files of web servers are read. */
import type { OpenOption } from './open-option.js';

/** See the file's comment. */
export interface HttpOptions {
  /** Headers that every request carries, to the server of the URL only. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Seconds in which a server has to answer or go on; default 10. A request is tried four times. */
  readonly timeoutSeconds?: number | undefined;
  /** Whether the server's certificate has to be valid; default true. */
  readonly verifyCertificate?: boolean | undefined;
  /** Bytes that are read ahead of reads that follow one another, at most; default 4 MiB. */
  readonly readAheadBytes?: number | undefined;
  /** User and password of basic authentication; default those of the URL, or of `.netrc`. */
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

/** The same by QEMU's names. */
export const httpOpenOptions: readonly OpenOption[] = [
  {
    name: 'readahead',
    type: 'size',
    key: 'http.readAheadBytes',
    help: 'bytes that are read ahead of reads that follow one another, at most',
  },
  {
    name: 'timeout',
    type: 'seconds',
    key: 'http.timeoutSeconds',
    help: 'seconds in which the server has to answer or go on',
  },
  {
    name: 'sslverify',
    type: 'switch',
    key: 'http.verifyCertificate',
    help: "whether the server's certificate has to be valid",
  },
  { name: 'username', type: 'text', key: 'http.username', help: 'the user' },
  {
    name: 'cookie',
    type: 'text',
    key: 'http.headers',
    means: (cookie) => ({ cookie }),
    help: 'the cookie that every request carries',
  },
];
