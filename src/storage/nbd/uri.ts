/** Names of exports of NBD servers (NetworkBlockDevice/nbd, doc/uri.md). */
import { cannotOpen } from '../../errors.js';
import { mostSocketPathBytes, nbdPort } from '../../nbd/protocol.js';

/** Where an export is. */
export interface NbdLocation {
  /** Path of a Unix socket, or host and port. */
  readonly server: { readonly path: string } | { readonly host: string; readonly port: number };
  readonly exportName: string;
}

/**
 * Reads `nbd://HOST[:PORT]/[NAME]` and `nbd+unix:///[NAME]?socket=PATH`.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT
 */
export function parseNbdUri(name: string): NbdLocation {
  const refuse = (why: string): Error => cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', name, why);
  const match = /^nbd(\+unix|\+tcp)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/is.exec(name);
  if (match === null) throw refuse('it is no valid NBD URI');
  const [, kind, authority, encodedName = '', query = ''] = match as (string | undefined)[];
  const exportName = decoded(encodedName);
  const parameters = new URLSearchParams(query.replaceAll('+', '%2B'));
  const socket = parameters.get('socket');
  if (exportName === undefined) throw refuse('its name of an export is not encoded as a URI’s');
  if (kind?.toLowerCase() === '+unix') {
    if (authority !== '') throw refuse('a URI of a Unix socket names no host');
    if (socket === null || socket === '') throw refuse('it names no socket (?socket=PATH)');
    if (Buffer.byteLength(socket) > mostSocketPathBytes) {
      throw refuse(`paths of sockets have at most ${mostSocketPathBytes} bytes`);
    }
    return { server: { path: socket }, exportName };
  }
  if (socket !== null) throw refuse('only nbd+unix:// names a socket');
  const place: readonly (string | undefined)[] | null =
    /^(?:[^@]*@)?(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(authority!);
  const port = Number(place?.[3] ?? nbdPort);
  if (place === null) throw refuse('it names no host');
  if (port > 65_535) throw refuse('it names no port');
  const host = place[1] ?? place[2] ?? '';
  return { server: { host: host === '' ? 'localhost' : host, port }, exportName };
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
