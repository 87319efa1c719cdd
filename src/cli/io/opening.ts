/** How the exerciser opens images, and opens them anew in another way. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import type { AioMode, CacheMode, OpenImageOptions } from '../../image/api/options.js';
import { defaultFormatName } from '../../image/names/formats.js';
import { type ImageName, parseImageName } from '../options/image-name.js';
import type { TlsObjects } from '../options/objects.js';
import { escapeListValue } from '../options/option-list.js';
import { parseCacheMode } from '../options/shared-options.js';
import { CliError } from '../process/cli-error.js';
import { openingReason } from '../text/failures.js';

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

/** The ways into images that the commands of the program share. */
export interface Openers {
  readonly openNamed: (name: ImageName, options: OpenImageOptions) => Promise<Image>;
  readonly openOverlay: (
    name: ImageName,
    options: OpenImageOptions,
  ) => Promise<{ readonly image: Image; readonly close: () => Promise<void> }>;
}

/** An image that is open. */
export interface OpenDisk {
  readonly image: Image;
  readonly opening: Opening;
  /** Whether its format was not said, and its bytes look like none. */
  readonly isGuessed: boolean;
  readonly close: () => Promise<void>;
}

/**
 * Opens an image.
 *
 * @throws CliError for one that cannot be opened
 */
export async function openDisk(
  opening: Opening,
  objects: TlsObjects,
  openers: Openers,
  onFinding: OpenImageOptions['onFinding'],
): Promise<OpenDisk> {
  const { readOnly, forceShare, isSnapshot, copiesOnRead, cache, discard, aio } = opening;
  const attempt = opening.given === undefined ? "can't open" : `can't open device ${opening.given}`;
  const refuse = (why: string, cause?: unknown): CliError =>
    new CliError(`${attempt}: ${why}`, { cause });
  if (forceShare && !readOnly) {
    throw refuse('force-share=on can only be used with read-only images');
  }
  if (copiesOnRead && readOnly) throw refuse("Can't use copy-on-read on read-only device");
  const name = named(opening, objects, attempt);
  const options = { readOnly, forceShare, cache, discard, aio, onFinding };
  try {
    if (isSnapshot) {
      const { image, close } = await openers.openOverlay(name, options);
      return { image, opening, isGuessed: false, close };
    }
    const image = await openers.openNamed(name, options);
    const isGuessed = name.format === undefined && image.format === defaultFormatName;
    return { image, opening, isGuessed, close: () => image.close() };
  } catch (error) {
    const cause = error instanceof CliError ? error.cause : undefined;
    throw cause instanceof CowherdError ? refuse(openingReason(name, cause), cause) : error;
  }
}

function named(
  { given, list, format, readOnly }: Opening,
  objects: TlsObjects,
  attempt: string,
): ImageName {
  const use = { objects, attempt, forWriting: !readOnly };
  try {
    return list === undefined
      ? parseImageName(given ?? '', { ...use, format })
      : parseImageName(list, { ...use, imageOpts: true });
  } catch (error) {
    const cause = error instanceof CliError ? error.cause : undefined;
    if (!(cause instanceof CowherdError)) throw error;
    throw new CliError(`${attempt}: ${cause.why ?? cause.message}`, { cause });
  }
}

/** The options of an opening as a list, with others behind them, which are the stronger ones. */
export function listWith({ given, list, format }: Opening, further: string): string {
  const file = given === undefined ? [] : [`file.filename=${escapeListValue(given)}`];
  const own = list ?? [...(format === undefined ? [] : [`driver=${format}`]), ...file].join(',');
  return own === '' ? further : `${own},${further}`;
}

/** The cache mode of a name. @throws CliError */
export function parseCache(name: string): CacheMode {
  const mode = parseCacheMode(name);
  if (mode !== undefined) return mode;
  throw new CliError(`Invalid cache option: ${name}`);
}

/** Whether discarded clusters are freed. @throws CliError */
export function parseDiscard(name: string): OpenImageOptions['discard'] {
  if (name === 'ignore' || name === 'off') return 'ignore';
  if (name === 'unmap' || name === 'on') return 'unmap';
  throw new CliError(`Invalid discard option: ${name}`);
}

/** The engine of a name that QEMU has. @throws CliError */
export function parseEngine(name: string): AioMode {
  if (name === 'native') return 'auto';
  if (name === 'threads' || name === 'io_uring') return name;
  throw new CliError(`Invalid aio option: ${name}`);
}
