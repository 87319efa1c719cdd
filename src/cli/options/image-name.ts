/** Names of images as the command line has them: paths, `file:` in front of paths, lists of options, JSON. */
import { CowherdError } from '../../errors.js';
import type { OpenImageOptions } from '../../image/api/options.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { formatRefusal, isReadableFormat } from '../../image/names/formats.js';
import { isUrl } from '../../image/api/path.js';
import { CliError } from '../process/cli-error.js';
import {
  type ImageSpecification,
  type NamedSettings,
  isFilterName,
  isJsonName,
  specificationOf,
  specificationOfOptions,
} from '../../image/names/specification.js';
import { type GivenObjects, credentialsNamed, noObjects } from './objects.js';
import { parseOptionList } from './option-list.js';

/** An image to open. */
export interface ImageName {
  /** The name as given, for messages. */
  readonly given: string;
  /** The path of its file. */
  readonly path: string;
  /** The format that the name or the command line states. */
  readonly format: ImageFormat | undefined;
  /** What else the name says of how to open it, and the secrets that it, and those below it, may mean by their ids. */
  readonly settings?: NamedSettings & Pick<OpenImageOptions, 'secrets'>;
}

/** How a name is to be understood. */
export interface ImageNameOptions {
  /** The argument of the format option. */
  readonly format?: string | undefined;
  /** The name is a list of options. */
  readonly imageOpts?: boolean;
  /** Whether the image is to be written to; default false. */
  readonly forWriting?: boolean;
  /** Whether it is looked at without what lies below it; default false. */
  readonly isAlone?: boolean;
  /** Credentials and secrets that the name may mean by their ids. */
  readonly objects?: GivenObjects;
  /** Exit code of failures; default 1. */
  readonly exitCode?: number;
  /** What is said in front of a failure; default that the image could not be opened. */
  readonly attempt?: string;
}

/**
 * Understands the name of an image that is to be opened.
 *
 * @throws CliError for a protocol or format that is not supported
 */
export function parseImageName(given: string, options: ImageNameOptions = {}): ImageName {
  const { format, imageOpts = false, exitCode = 1, forWriting = false, isAlone = false } = options;
  const use = { forWriting, isAlone };
  const { objects = noObjects } = options;
  const { attempt = `Could not open '${given}'` } = options;
  const refuse = (message: string): CliError =>
    new CliError(`${attempt}: ${message}`, { exitCode });
  if (imageOpts) {
    if (format !== undefined) {
      throw new CliError('--image-opts and --format are mutually exclusive', { exitCode });
    }
    // A single word would be the name of a node of a running machine, of which there is none here.
    if (!given.includes('='))
      throw refuse(`Cannot find device='${given}' nor node-name='${given}'`);
    const values = new Map(parseOptionList(given).map(({ name, value }) => [name, value]));
    const named = understood(exitCode, () => specificationOfOptions(given, values, use));
    return { given, ...withObjects(named, objects) };
  }
  if (given === '') throw refuse("The 'file' block driver requires a file name");
  if (isJsonName(given)) {
    const named = withObjects(
      understood(exitCode, () => specificationOf(given, use)),
      objects,
    );
    if (format === undefined || named.format === format) return { given, ...named };
    throw refuse(`the name says a format of its own, and -f ${format} another`);
  }
  if (isFilterName(given)) {
    const { path, settings } = understood(exitCode, () => specificationOf(given, use));
    const named = withObjects({ path, format, settings }, objects);
    return { given, ...named };
  }
  const path = pathOfName(given, refuse);
  if (format !== undefined && !isReadableFormat(format)) {
    throw refuse(formatRefusal(format, path));
  }
  return { given, path, format, ...settingsOf(objects) };
}

/** The secrets that an image is opened with, if any were given. */
function settingsOf({ secrets }: GivenObjects): Pick<ImageName, 'settings'> {
  return Object.keys(secrets).length === 0 ? {} : { settings: { secrets } };
}

/** The name with secrets, and with the folder of the credentials that it names by an id. */
function withObjects(
  name: ImageSpecification,
  objects: GivenObjects,
): ImageSpecification & Pick<ImageName, 'settings'> {
  const named = { ...name, settings: { ...name.settings, ...settingsOf(objects).settings } };
  const { nbd } = named.settings;
  if (nbd?.tlsCredentials === undefined) return named;
  const { folder, username } = credentialsNamed(nbd.tlsCredentials, objects, 'client');
  const own = { ...nbd, tlsCredentials: folder, tlsUsername: nbd.tlsUsername ?? username };
  return { ...named, settings: { ...named.settings, nbd: own } };
}

/** What a name comes to. @throws CliError with the exit code where it is refused */
function understood(exitCode: number, read: () => ImageSpecification): ImageSpecification {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    throw new CliError(error.message, { exitCode, cause: error });
  }
}

/**
 * The path that a name means: a name with a colon before any slash has a protocol in front, of
 * which only `file:` is known.
 */
export function pathOfName(name: string, refuse: (message: string) => CliError): string {
  const protocol = /^([^:/]*):/.exec(name)?.[1];
  if (protocol === undefined || isUrl(name)) return name;
  if (protocol === 'file') {
    const rest = name.slice('file:'.length);
    // So that the path, printed, is not taken for a protocol and a name.
    return /^[^/]*:/.test(rest) ? `./${rest}` : rest;
  }
  if (protocol === 'json') throw refuse('Names that begin with json: are not supported');
  throw refuse(`Unknown protocol '${protocol}'`);
}
