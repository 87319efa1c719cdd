/** `cowherd dd`: copies a part of a disk, counted in blocks, into a new image. */
import { CowherdError } from '../../errors.js';
import { defaultFormatName, isCreatableFormat } from '../../image/names/formats.js';
import { ddImage } from '../../jobs/dd.js';
import { parseSize } from '../../size.js';
import { CliError } from '../process/cli-error.js';
import { parseImageName, pathOfName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import type { Command } from './command.js';
import { openNamed } from './open.js';

const mostBlockBytes = 2_147_483_647;
const mostCount = 9_223_372_036_854_775_807n;

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  imageOpts: shared.readerOptions.imageOpts,
  forceShare: shared.readerOptions.forceShare,
  untrusted: shared.readerOptions.untrusted,
  object: shared.readerOptions.object,
  aio: shared.readerOptions.aio,
  targetFormat: {
    short: 'O',
    long: 'output-format',
    argument: 'FORMAT',
    help: 'format of the new image; default raw',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const ddCommand: Command = {
  name: 'dd',
  summary: 'Copy a part of a disk into a new image, every byte of it',
  operands: '[bs=BYTES] [count=BLOCKS] [skip=BLOCKS] if=IMAGE of=TARGET',
  options,
  examples: ['dd -O qcow2 bs=1M count=10 if=disk.raw of=begin.qcow2'],
  async run(words, session) {
    const line = parseCommandLine('dd', options, words);
    const given = readOperands(line.operands);
    const objects = readObjects(line.all('object'));
    if (given.if === undefined || given.of === undefined) {
      throw new CliError('Must specify both input and output files');
    }
    const format = line.last('targetFormat') ?? defaultFormatName;
    if (!isCreatableFormat(format)) throw new CliError('Unknown file format');
    const source = parseImageName(given.if, {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
    });
    const target = pathOfName(given.of, (message) => new CliError(message));
    const { signal } = session;
    await using image = await openNamed(source, {
      signal,
      readOnly: true,
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: shared.parseAio(line.last('aio')),
    });
    try {
      const { isBeyond } = await ddImage(image, target, {
        ...{ blockSize: given.bs, count: given.count, skip: given.skip },
        ...{ to: format, signal },
      });
      if (isBeyond) {
        session.complain(`${session.name}: ${given.if}: cannot skip to specified offset\n`);
      }
    } catch (error) {
      if (signal.aborted || !(error instanceof CowherdError)) throw error;
      throw new CliError(error.message, { cause: error });
    }
    return 0;
  },
};

interface Operands {
  bs?: number;
  count?: number;
  skip?: number;
  if?: string;
  of?: string;
}

function readOperands(operands: readonly string[]): Operands {
  const given: Operands = {};
  for (const operand of operands) {
    const [name, ...rest] = operand.split('=');
    const value = rest.join('=');
    if (rest.length === 0) throw new CliError(`unrecognized operand ${operand}`);
    if (name === 'bs') given.bs = parseNumber(name, value, 1n, BigInt(mostBlockBytes));
    else if (name === 'count' || name === 'skip') {
      given[name] = parseNumber(name, value, 0n, mostCount);
    } else if (name === 'if' || name === 'of') given[name] = value;
    else throw new CliError(`unrecognized operand ${name}`);
  }
  return given;
}

function parseNumber(name: string, text: string, least: bigint, most: bigint): number {
  const size = parseSize(text);
  if (size === 'invalid') throw new CliError(`Invalid ${name} specified: '${text}'.`);
  if (size === 'out-of-range' || size < least || size > most) {
    throw new CliError(`Invalid ${name} specified. Must be between ${least} and ${most}.`);
  }
  // Beyond what numbers tell exactly there is no disk.
  return Number(size > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : size);
}
