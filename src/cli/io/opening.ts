/** What is said of an image that is to be opened, and in which ways. */
import type { AioMode, CacheMode, OpenImageOptions } from '../../image/api/options.js';
import { isJsonName, optionsOfJson } from '../../image/names/specification.js';
import { escapeListValue } from '../options/option-list.js';
import { parseCacheMode } from '../options/shared-options.js';
import { CliError } from '../process/cli-error.js';

/** What is said of an image that is to be opened. */
export interface Opening {
  /** As it was named; undefined where that is a list of options. */
  readonly given: string | undefined;
  /** Options as `driver=NAME,file.filename=NAME`; undefined where the name alone says it. */
  readonly list: string | undefined;
  readonly format: string | undefined;
  readonly readOnly: boolean;
  readonly forceShare: boolean;
  /** Whether what is written goes into an image above that is gone at the end. */
  readonly isSnapshot: boolean;
  /** Whether what is read from below is kept in the image. */
  readonly copiesOnRead: boolean;
  readonly cache: CacheMode | undefined;
  readonly discard: OpenImageOptions['discard'];
  readonly aio: AioMode | undefined;
}

/** An opening of which nothing is said. */
export const plainOpening: Opening = {
  given: undefined,
  list: undefined,
  format: undefined,
  readOnly: false,
  forceShare: false,
  isSnapshot: false,
  copiesOnRead: false,
  cache: undefined,
  discard: undefined,
  aio: undefined,
};

/** The options of an opening as a list, with others behind them, which are the stronger ones. */
export function listWith({ given, list, format }: Opening, further: string): string {
  const named = [...(format === undefined ? [] : [`driver=${format}`]), ...listOf(given)];
  const own = list ?? named.join(',');
  return own === '' ? further : `${own},${further}`;
}

/** What a name says, as items of a list. */
function listOf(given: string | undefined): readonly string[] {
  if (given === undefined) return [];
  const options = isJsonName(given) ? optionsOfJson(given) : new Map([['file.filename', given]]);
  return [...options].map(([name, value]) => `${name}=${escapeListValue(value)}`);
}

/** The cache mode of a name. @throws CliError */
export function parseCache(name: string): CacheMode {
  const mode = parseCacheMode(name);
  if (mode !== undefined) return mode;
  throw new CliError(`Invalid cache option: ${name}`);
}

/** Ways of opening by their names, each undefined where it is not said. */
interface NamedWays {
  readonly cache: string | undefined;
  readonly discard: string | undefined;
  readonly aio: string | undefined;
}

/** The ways of opening of those names. @throws CliError */
export function parseWays({
  cache,
  discard,
  aio,
}: NamedWays): Pick<Opening, 'cache' | 'discard' | 'aio'> {
  return {
    cache: cache === undefined ? undefined : parseCache(cache),
    discard: discard === undefined ? undefined : parseDiscard(discard),
    aio: aio === undefined ? undefined : parseEngine(aio),
  };
}

function parseDiscard(name: string): Opening['discard'] {
  if (name === 'ignore' || name === 'off') return 'ignore';
  if (name === 'unmap' || name === 'on') return 'unmap';
  throw new CliError(`Invalid discard option: ${name}`);
}

function parseEngine(name: string): AioMode {
  if (name === 'native') return 'auto';
  if (name === 'threads' || name === 'io_uring') return name;
  throw new CliError(`Invalid aio option: ${name}`);
}
