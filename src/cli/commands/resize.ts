/** `cowherd resize`: gives a disk another size. */
import { CowherdError } from '../../errors.js';
import type { Preallocation } from '../../image/api/options.js';
import { parseSize } from '../../size.js';
import { CliError, usageError } from '../process/cli-error.js';
import { sizeExpected } from '../options/create-options.js';
import { parseImageName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import type { Command } from './command.js';
import { openNamed, tellingFindings } from './open.js';

const modes: readonly string[] = ['off', 'metadata', 'falloc', 'full'] satisfies Preallocation[];

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.quietOption,
  ...shared.writerOptions,
  preallocation: {
    long: 'preallocation',
    argument: 'MODE',
    help: 'space reserved for what is added: off, metadata, falloc or full',
  },
  shrink: { long: 'shrink', help: 'a smaller size is meant: what lies beyond is gone' },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const resizeCommand: Command = {
  name: 'resize',
  summary: 'Give the disk of an image another size',
  operands: 'IMAGE [+|-]SIZE',
  options,
  examples: ['resize disk.qcow2 20G', 'resize disk.qcow2 +10G', 'resize --shrink disk.qcow2 -1G'],
  optionWords,
  async run(words, session) {
    const given = optionWords(words);
    const line = parseCommandLine('resize', options, given);
    const operands = [...line.operands, ...words.slice(given.length)];
    if (operands.length < 2) throw usageError('resize', 'Not enough arguments');
    if (operands.length > 2) throw usageError('resize', 'Expecting image file name and size');
    const [filename, text] = operands;
    const objects = readObjects(line.all('object'));
    const preallocation = parsePreallocation(line.last('preallocation'));
    const { sign, bytes } = parseWanted(text);
    const name = parseImageName(filename, {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
      forWriting: true,
    });
    await using image = await openNamed(name, {
      signal: session.signal,
      ...tellingFindings(session),
      aio: shared.parseAio(line.last('aio')),
    });
    const size = sign === 0 ? bytes : image.size + sign * bytes;
    if (size <= 0) throw new CliError('New image size must be positive');
    if (size <= image.size && preallocation !== 'off') {
      throw new CliError('Preallocation can only be used for growing images');
    }
    if (size < image.size && !line.has('shrink')) {
      session.complain(`${session.name}: Use the --shrink option to perform a shrink operation.\n`);
      session.warn(
        "Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.",
      );
      return 1;
    }
    try {
      await image.resize(size, {
        shrink: line.has('shrink'),
        preallocation,
        signal: session.signal,
      });
    } catch (error) {
      if (session.signal.aborted || !(error instanceof CowherdError)) throw error;
      const { why = error.message, hint } = error;
      throw new CliError(hint === undefined ? why : `${why}\n${hint}`, { cause: error });
    }
    if (!line.has('quiet')) await session.print('Image resized.\n');
    return 0;
  },
};

/** All but a size at the end, which may begin as an option does. */
function optionWords(words: readonly string[]): readonly string[] {
  return /^[-+]?\d/.test(words.at(-1) ?? '') ? words.slice(0, -1) : words;
}

function parsePreallocation(text = 'off'): Preallocation {
  if (modes.includes(text)) return text as Preallocation;
  throw new CliError(`Invalid preallocation mode '${text}'`);
}

/** A size, or how much is added or taken away. */
function parseWanted(text: string): { readonly sign: -1 | 0 | 1; readonly bytes: number } {
  const sign = text.startsWith('+') ? 1 : text.startsWith('-') ? -1 : 0;
  const size = parseSize(sign === 0 ? text : text.slice(1));
  if (typeof size === 'bigint') return { sign, bytes: Number(size) };
  throw new CliError(
    size === 'out-of-range'
      ? `Value '${text}' is out of range for parameter 'size'`
      : sizeExpected('size'),
  );
}
