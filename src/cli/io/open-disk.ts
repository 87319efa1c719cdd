/** How the exerciser opens images: what stands over them is taken off, and failures are said in qemu-io's words. */
import { CowherdError, printable } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import type { OpenImageOptions } from '../../image/api/options.js';
import { defaultFormatName } from '../../image/names/formats.js';
import { type ImageName, parseImageName } from '../options/image-name.js';
import type { GivenObjects } from '../options/objects.js';
import { CliError } from '../process/cli-error.js';
import { openingReason } from '../text/failures.js';
import { belowNodes } from './nodes-above.js';
import type { Opening } from './opening.js';

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
  /** Whether what is read from below is kept in it. */
  readonly copiesOnRead: boolean;
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
  objects: GivenObjects,
  openers: Openers,
  onFinding: OpenImageOptions['onFinding'],
): Promise<OpenDisk> {
  const { readOnly, forceShare, isSnapshot, cache, discard, aio } = opening;
  const attempt =
    opening.given === undefined ? "can't open" : `can't open device ${printable(opening.given)}`;
  const refuse = (why: string, cause?: unknown): CliError =>
    new CliError(`${attempt}: ${why}`, { cause });
  if (forceShare && !readOnly) {
    throw refuse('force-share=on can only be used with read-only images');
  }
  if (opening.copiesOnRead && readOnly) {
    throw refuse("Can't use copy-on-read on read-only device");
  }
  const below = belowNodes(opening, refuse);
  const { copiesOnRead } = below;
  const name = named(below, objects, attempt);
  const options = {
    ...{ readOnly, forceShare, cache, discard, aio, onFinding },
    reserveAhead: false,
  };
  try {
    if (isSnapshot) {
      const { image, close } = await openers.openOverlay(name, options);
      return { image, opening, copiesOnRead, isGuessed: false, close };
    }
    const image = await openers.openNamed(name, options);
    const isGuessed = name.format === undefined && image.format === defaultFormatName;
    return { image, opening, copiesOnRead, isGuessed, close: () => image.close() };
  } catch (error) {
    const cause = error instanceof CliError ? error.cause : undefined;
    throw cause instanceof CowherdError ? refuse(openingReason(name, cause), cause) : error;
  }
}

function named(
  { given, list, format, readOnly }: Opening,
  objects: GivenObjects,
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
