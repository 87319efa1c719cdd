/** Addresses that are served at: `unix:PATH` and `tcp:HOST:PORT`, and what is said of a device there. */
import { CowherdError } from '../../errors.js';
import { mostSocketPathBytes, nbdPort } from '../../nbd/protocol.js';

/** Where clients come to. */
export type Address =
  | { readonly path: string }
  | { readonly host: string; readonly port: number }
  /** A socket that listens already. */
  | { readonly descriptor: number };

/**
 * Reads an address: `unix:PATH`, `tcp:HOST:PORT`, `tcp:HOST`, `tcp::PORT`, `fd:N`. A host with colons stands in brackets.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT
 */
export function parseAddress(text: string): Address {
  const [, scheme, rest = ''] = /^(unix|tcp|fd):(.*)$/s.exec(text) ?? [];
  if (scheme === 'unix' && Buffer.byteLength(rest) > mostSocketPathBytes) {
    throw invalid(text, `paths of sockets have at most ${mostSocketPathBytes} bytes`);
  }
  if (scheme === 'unix' && rest !== '') return { path: rest };
  if (scheme === 'fd' && /^\d{1,9}$/.test(rest)) return { descriptor: Number(rest) };
  if (scheme === 'tcp') {
    const match: readonly (string | undefined)[] | null =
      /^(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?$/.exec(rest);
    const port = Number(match?.[3] ?? nbdPort);
    if (match !== null && port <= 65_535) return { host: match[1] ?? match[2] ?? '', port };
  }
  throw invalid(text, 'unix:PATH, tcp:HOST:PORT or fd:N is expected');
}

/** A device at an address. */
export interface DeviceAddress {
  readonly address: Address;
  /** Virtqueues at most. */
  readonly queues: number;
  /** Name of the image; undefined where there is one only. */
  readonly name: string | undefined;
  /** Whether drivers may have packed queues, whose requests under way nobody notes. */
  readonly isPacked: boolean;
}

/** Virtqueues of a device at most. */
const mostVirtqueues = 64;
/** Virtqueues by default: a front-end refuses a device with fewer than it wants. */
const usualVirtqueues = 16;

/** What is said at an address, divided at its commas. One within is doubled. */
function partsOf(text: string): readonly [string, ...string[]] {
  const [first = '', ...options] = text
    .split(/(?<!,),(?=(?:,,)*(?!,))/)
    .map((part) => part.replaceAll(',,', ','));
  return [first, ...options];
}

/**
 * Reads `FILE[,name=NAME]`. A comma within is doubled.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT
 */
export function parseFileAddress(text: string): {
  readonly path: string;
  readonly name: string | undefined;
} {
  const [path, ...options] = partsOf(text);
  if (path === '' || path.includes('\0')) throw invalid(text, 'the path of a file is expected');
  let name: string | undefined;
  for (const option of options) {
    if (!option.startsWith('name=')) throw invalid(text, `name=NAME is expected, not '${option}'`);
    name = option.slice('name='.length);
  }
  return { path, name };
}

/**
 * Reads `unix:PATH[,queues=N][,name=NAME][,packed=on|off]` or `fd:N[,…]`. A comma within is doubled.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT
 */
export function parseDeviceAddress(text: string): DeviceAddress {
  const [first, ...options] = partsOf(text);
  if (!/^(unix:.|fd:\d)/s.test(first)) throw invalid(text, 'unix:PATH or fd:N is expected');
  const address = parseAddress(first);
  let queues = usualVirtqueues;
  let name: string | undefined;
  let isPacked = false;
  const known = new Set<string | undefined>();
  for (const option of options) {
    const match: readonly (string | undefined)[] =
      /^(queues|name|packed)=(.*)$/s.exec(option) ?? [];
    const [, key, value = ''] = match;
    if (key !== undefined && known.has(key)) throw invalid(text, `${key} is said twice`);
    known.add(key);
    if (key === 'name') {
      name = value;
    } else if (key === 'queues' && /^\d{1,3}$/.test(value)) {
      queues = Number(value);
    } else if (key === 'packed' && /^(on|off)$/.test(value)) {
      isPacked = value === 'on';
    } else {
      throw invalid(text, `queues=N, name=NAME or packed=on|off is expected, not '${option}'`);
    }
  }
  if (queues >= 1 && queues <= mostVirtqueues) return { address, queues, name, isPacked };
  throw invalid(text, `a device has from 1 to ${mostVirtqueues} queues`);
}

function invalid(text: string, why: string): CowherdError {
  return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', `Invalid address '${text}': ${why}`);
}

/** An address as `parseAddress` reads it. */
export function addressText(address: Address): string {
  if ('path' in address) return `unix:${address.path}`;
  if ('descriptor' in address) return `fd:${address.descriptor}`;
  const { host, port } = address;
  return `tcp:${host.includes(':') ? `[${host}]` : host}:${port}`;
}
