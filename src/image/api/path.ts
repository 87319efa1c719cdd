/** Names of files as Node's own functions take them. */
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { nameOfBytes } from '../../byte-names.js';
import { CowherdError } from '../../errors.js';
import { isUrl } from '../../storage/registry.js';

export { isUrl } from '../../storage/registry.js';

/**
 * A path, a `file:` URL, or the bytes of a path, in UTF-8 or not; or a URL of a protocol that is known, also
 * as a string.
 */
export type PathLike = string | UrlLike | Uint8Array;

/** A `URL`, whichever library declares that, and of whichever realm it is. */
export interface UrlLike {
  readonly href: string;
  readonly protocol: string;
}

/**
 * The path that a caller means.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT for what names no file
 */
export function pathOf(path: unknown): string {
  if (typeof path === 'string') return checked(path);
  try {
    if (isUrlObject(path)) return checked(isUrl(path.href) ? path.href : fileURLToPath(path.href));
    if (types.isUint8Array(path)) {
      return checked(nameOfBytes(path));
    }
  } catch (cause) {
    throw invalid('the URL or buffer names no file', cause);
  }
  throw invalid('a string, a URL or a Buffer is expected');
}

function isUrlObject(path: unknown): path is UrlLike {
  if (typeof path !== 'object' || path === null) return false;
  const { href, protocol } = path as Partial<UrlLike>;
  return typeof href === 'string' && typeof protocol === 'string';
}

function checked(path: string): string {
  if (!path.includes('\0')) return path;
  throw invalid('it has a zero byte');
}

function invalid(why: string, cause?: unknown): CowherdError {
  if (cause instanceof CowherdError) return cause;
  return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', `Invalid path: ${why}`, { cause });
}
