/** How files of web servers are read. */

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
