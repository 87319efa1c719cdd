/** Names of exports of NBD servers (NetworkBlockDevice/nbd, doc/uri.md). */
import { cannotOpen } from '../../errors.js';
import { mostSocketPathBytes, nbdPort } from '../../nbd/protocol.js';
import type { ClientTls } from './tls.js';

/** Where an export is. */
export interface NbdLocation {
  /** Path of a Unix socket, or host and port. */
  readonly server: { readonly path: string } | { readonly host: string; readonly port: number };
  readonly exportName: string;
  /** Undefined where nothing is secured. */
  readonly tls?: ClientTls | undefined;
}

/** What a URI says. */
export interface NbdUri {
  readonly location: NbdLocation;
  /** Whether it is for secured connections only. */
  readonly isSecured: boolean;
  /** What it says of credentials. */
  readonly tlsCredentials?: string | undefined;
  readonly tlsHostname?: string | undefined;
  readonly tlsUsername?: string | undefined;
}

/**
 * Reads `nbd://HOST[:PORT]/[NAME]` and `nbd+unix:///[NAME]?socket=PATH`; with `nbds` in place of `nbd`
 * connections are secured, and `tls-certificates=FOLDER`, `tls-hostname=NAME` and `tls-username=NAME` say how.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT
 */
export function parseNbdUri(name: string): NbdUri {
  const refuse = (why: string): Error => cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', name, why);
  const match = /^nbd(s)?(\+unix|\+tcp)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/is.exec(name);
  if (match === null) throw refuse('it is no valid NBD URI');
  const [, secured, kind, authority, encodedName = '', query = ''] = match as (
    string | undefined
  )[];
  const exportName = decoded(encodedName);
  const parameters = new URLSearchParams(query.replaceAll('+', '%2B'));
  const socket = parameters.get('socket');
  if (exportName === undefined) throw refuse('its name of an export is not encoded as a URI’s');
  const security = {
    isSecured: secured !== undefined,
    tlsCredentials: parameters.get('tls-certificates') ?? undefined,
    tlsHostname: parameters.get('tls-hostname') ?? undefined,
    tlsUsername: parameters.get('tls-username') ?? undefined,
  };
  if (kind?.toLowerCase() === '+unix') {
    if (authority !== '') throw refuse('a URI of a Unix socket names no host');
    if (socket === null || socket === '') throw refuse('it names no socket (?socket=PATH)');
    if (Buffer.byteLength(socket) > mostSocketPathBytes) {
      throw refuse(`paths of sockets have at most ${mostSocketPathBytes} bytes`);
    }
    return { location: { server: { path: socket }, exportName }, ...security };
  }
  if (socket !== null) throw refuse('only nbd+unix:// names a socket');
  const place: readonly (string | undefined)[] | null =
    /^(?:[^@]*@)?(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(authority!);
  const port = Number(place?.[3] ?? nbdPort);
  if (place === null) throw refuse('it names no host');
  if (port > 65_535) throw refuse('it names no port');
  const host = place[1] ?? place[2] ?? '';
  const server = { host: host === '' ? 'localhost' : host, port };
  return { location: { server, exportName }, ...security };
}

/**
 * The URI of an export that QEMU's options name: `server.type`, `server.path`, `server.host`, `server.port`
 * and `export`, or `path`, `host` and `port` alone.
 *
 * @param take an option's value, if it is given
 * @returns undefined if they name no server
 */
export function nbdUriOf(take: (name: string) => string | undefined): string | undefined {
  const type = take('server.type');
  const path = take('server.path') ?? take('path');
  const host = take('server.host') ?? take('host');
  const port = take('server.port') ?? take('port');
  const name = encodeURIComponent(take('export') ?? '');
  const isUnix = path !== undefined && (type === undefined || type === 'unix');
  if (isUnix && host === undefined && port === undefined) {
    return `nbd+unix:///${name}?socket=${encodeURIComponent(path)}`;
  }
  const isInet = host !== undefined && (type === undefined || type === 'inet');
  if (!isInet || path !== undefined) return undefined;
  const place = host.includes(':') ? `[${host}]` : host;
  return `nbd://${place}${port === undefined ? '' : `:${port}`}/${name}`;
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
