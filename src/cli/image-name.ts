/** Names of images as the command line has them: paths, `file:` in front of paths, lists of options. */
import type { ImageFormat, OpenImageOptions } from '../image/api.js';
import { formatRefusal } from '../image/formats.js';
import { CliError } from './cli-error.js';
import { isImageFormat } from './formats.js';
import { parseOptionList } from './option-list.js';

/** An image to open. */
export interface ImageName {
  /** The name as given, for messages. */
  readonly given: string;
  /** The path of its file. */
  readonly path: string;
  /** The format that the name or the command line states. */
  readonly format: ImageFormat | undefined;
  /** What else a list of options says of how to open it. */
  readonly opening?: Pick<OpenImageOptions, 'overlapCheck'>;
}

/** How a name is to be understood. */
export interface ImageNameOptions {
  /** The argument of the format option. */
  readonly format?: string | undefined;
  /** The name is a list of options. */
  readonly imageOpts?: boolean;
  /** Exit code of failures; default 1. */
  readonly exitCode?: number;
}

/**
 * Understands the name of an image that is to be opened.
 *
 * @throws CliError for a protocol or format that is not supported
 */
export function parseImageName(given: string, options: ImageNameOptions = {}): ImageName {
  const { format, imageOpts = false, exitCode = 1 } = options;
  const refuse = (message: string): CliError =>
    new CliError(`Could not open '${given}': ${message}`, { exitCode });
  if (imageOpts) {
    if (format !== undefined) {
      throw new CliError('--image-opts and --format are mutually exclusive', { exitCode });
    }
    return parseImageOptions(given, refuse);
  }
  if (given === '') throw refuse("The 'file' block driver requires a file name");
  const path = pathOfName(given, refuse);
  if (format !== undefined && !isImageFormat(format)) {
    throw refuse(formatRefusal(format, path));
  }
  return { given, path, format };
}

/**
 * The path that a name means: a name with a colon before any slash has a protocol in front, of
 * which only `file:` is known.
 */
export function pathOfName(name: string, refuse: (message: string) => CliError): string {
  const protocol = /^([^:/]*):/.exec(name)?.[1];
  if (protocol === undefined) return name;
  if (protocol === 'file') {
    const rest = name.slice('file:'.length);
    // So that the path, printed, is not taken for a protocol and a name.
    return /^[^/]*:/.test(rest) ? `./${rest}` : rest;
  }
  if (protocol === 'json') throw refuse('Names that begin with json: are not supported');
  throw refuse(`Unknown protocol '${protocol}'`);
}

/** QEMU has two names for it. */
const overlapNames = ['overlap-check', 'overlap-check.template'];
const overlapLevels = ['none', 'constant', 'cached', 'all'] as const;

function parseOverlapCheck(
  given: ReadonlyMap<string, string>,
  refuse: (message: string) => CliError,
): OpenImageOptions['overlapCheck'] {
  const [value, other] = overlapNames.map((name) => given.get(name));
  if (value !== undefined && other !== undefined && value !== other) {
    throw refuse(
      `Conflicting values for qcow2 options 'overlap-check' ('${value}') and 'overlap-check.template' ('${other}')`,
    );
  }
  const name = value ?? other;
  if (name === undefined) return undefined;
  const level = overlapLevels.find((known) => known === name);
  if (level !== undefined) return level;
  throw refuse(
    `Unsupported value '${name}' for qcow2 option 'overlap-check'. Allowed are any of the following: ${overlapLevels.join(', ')}`,
  );
}

function parseImageOptions(given: string, refuse: (message: string) => CliError): ImageName {
  let driver: string | undefined;
  let path: string | undefined;
  const overlap = new Map<string, string>();
  const others: string[] = [];
  for (const { name, value } of parseOptionList(given)) {
    if (name === 'driver') driver = value;
    else if (name === 'file.filename') path = value;
    else if (name === 'file.driver') {
      if (value !== 'file' && value !== 'host_device') throw refuse(`Unknown driver '${value}'`);
    } else if (overlapNames.includes(name)) overlap.set(name, value);
    else others.push(name);
  }
  // A single word would be the name of a node of a running machine, of which there is none here.
  if (!given.includes('=')) {
    throw refuse(`Cannot find device='${given}' nor node-name='${given}'`);
  }
  if (driver !== undefined && !isImageFormat(driver)) throw refuse(`Unknown driver '${driver}'`);
  if (path === undefined) throw refuse('A block device must be specified for "file"');
  if (driver === 'raw') others.push(...overlap.keys());
  if (others.length > 0) {
    throw refuse(`Block format '${driver ?? 'raw'}' does not support the option '${others[0]}'`);
  }
  return {
    given,
    path,
    format: driver,
    opening: { overlapCheck: parseOverlapCheck(overlap, refuse) },
  };
}
