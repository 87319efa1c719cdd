/** `cowherd map`: how the virtual disk is stored, extent by extent. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import type { Extent } from '../../image/api/reports.js';
import { parseSize } from '../../size.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import { exactInteger } from '../text/decimal.js';
import { parseImageName } from '../options/image-name.js';
import { openNamed } from './open.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import type { Session } from '../process/session.js';
import * as shared from '../options/shared-options.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.readerOptions,
  ...shared.outputOption,
  startOffset: {
    short: 's',
    long: 'start-offset',
    argument: 'OFFSET',
    help: 'begin at this guest offset',
  },
  maxLength: { short: 'l', long: 'max-length', argument: 'LENGTH', help: 'look at so many bytes' },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const mapCommand: Command = {
  name: 'map',
  summary: 'Show how the virtual disk of an image is stored',
  operands: 'IMAGE',
  options,
  async run(words, session) {
    const line = parseCommandLine('map', options, words);
    const json = shared.wantsJson('map', line.last('output'));
    const start = parseRange(line.last('startOffset'), 'start offset') ?? 0;
    const maxLength = parseRange(line.last('maxLength'), 'max length') ?? Infinity;
    if (line.operands.length !== 1) throw usageError('map', 'Expecting one image file name');
    const objects = readObjects(line.all('object'));
    const name = parseImageName(line.operands[0], {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
    });
    await using image = await openNamed(name, {
      signal: session.signal,
      readOnly: true,
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: shared.parseAio(line.last('aio')),
    });
    const length = Math.max(0, Math.min(maxLength, image.size - start));
    await (json ? printJson : printTable)(image, start, length, session);
    return 0;
  },
};

function parseRange(text: string | undefined, what: string): number | undefined {
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === 'out-of-range') {
    throw new CliError(`Invalid ${what} specified. Must be between 0 and 9223372036854775807.`);
  }
  if (size === 'invalid') throw new CliError(`Invalid ${what} specified: '${text}'.`);
  return Number(size);
}

async function* extentsOf(
  image: Image,
  start: number,
  length: number,
  session: Session,
): AsyncGenerator<Extent> {
  if (length === 0) return;
  try {
    yield* image.map({ offset: start, length, signal: session.signal });
  } catch (error) {
    if (session.signal.aborted || !(error instanceof CowherdError)) throw error;
    const { message, reason = message } = error;
    throw new CliError(`Could not read file metadata: ${reason}`, { cause: error });
  }
}

/** The extents but one that a failure cut off, as qemu-img prints them. */
async function* completeExtents(
  image: Image,
  start: number,
  length: number,
  session: Session,
): AsyncGenerator<Extent> {
  let previous: Extent | undefined;
  for await (const extent of extentsOf(image, start, length, session)) {
    if (previous !== undefined) yield previous;
    previous = extent;
  }
  if (previous !== undefined) yield previous;
}

/** Text is printed in pieces of about this size: a line at a time would cost more than the work. */
const pieceLength = 32 * 1024;

async function printTable(
  image: Image,
  start: number,
  length: number,
  session: Session,
): Promise<void> {
  let text = row('Offset', 'Length', 'Mapped to', 'File');
  try {
    for await (const extent of completeExtents(image, start, length, session)) {
      if (!extent.data) continue;
      if (extent.offset === undefined) {
        throw new CliError('File contains external, encrypted or compressed clusters.');
      }
      if (extent.zero) continue;
      text += row(
        hexadecimal(extent.start),
        hexadecimal(extent.length),
        hexadecimal(extent.offset),
        extent.filename ?? '',
      );
      if (text.length >= pieceLength) {
        await session.print(text);
        text = '';
      }
    }
  } finally {
    await session.print(text);
  }
}

function row(offset: string, length: string, mappedTo: string, file: string): string {
  return `${offset.padEnd(16)}${length.padEnd(16)}${mappedTo.padEnd(16)}${file}\n`;
}

function hexadecimal(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

async function printJson(
  image: Image,
  start: number,
  length: number,
  session: Session,
): Promise<void> {
  let text = '[';
  let previous: Extent | undefined;
  try {
    for await (const extent of extentsOf(image, start, length, session)) {
      if (previous !== undefined) text += `${jsonLine(previous)},\n`;
      previous = extent;
      if (text.length >= pieceLength) {
        await session.print(text);
        text = '';
      }
    }
    text += `${jsonLine(previous ?? nothingAt(start))}]\n`;
  } finally {
    await session.print(text);
  }
}

/** What is printed for an empty range. */
function nothingAt(start: number): Extent {
  const none = { present: false, zero: false, data: false, compressed: false };
  return { start, length: 0, depth: 0, ...none };
}

function jsonLine(extent: Extent): string {
  const { start, length, depth, present, zero, data, compressed, offset } = extent;
  const members = Object.entries({ start, length, depth, present, zero, data, compressed, offset });
  const shown = members.filter(([, value]) => value !== undefined);
  return `{ ${shown.map(([key, value]) => `"${key}": ${typeof value === 'number' ? exactInteger(value) : String(value)}`).join(', ')}}`;
}
