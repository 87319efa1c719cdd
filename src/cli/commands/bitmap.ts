/** `cowherd bitmap`: adds, removes and changes the persistent bitmaps of an image. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import { parseSize } from '../../size.js';
import { CliError } from '../process/cli-error.js';
import { parseImageName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs, ParsedCommandLine } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { bitmapText } from '../text/failures.js';
import type { Command } from './command.js';
import { openNamed } from './open.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  add: { long: 'add', help: 'begin the bitmap: from then on it records what is written' },
  remove: { long: 'remove', help: 'give the bitmap up' },
  clear: { long: 'clear', help: 'have it say that nothing has changed' },
  enable: { long: 'enable', help: 'have it record what is written from now on' },
  disable: { long: 'disable', help: 'have it stay as it is, whatever is written' },
  merge: {
    long: 'merge',
    argument: 'SOURCE',
    help: 'have it say also what the bitmap SOURCE says, of this image or that of -b',
  },
  granularity: {
    short: 'g',
    long: 'granularity',
    argument: 'SIZE',
    help: 'bytes that a bit of a new bitmap covers; default a cluster, from 4k to 64k',
  },
  sourceFile: {
    short: 'b',
    long: 'source-file',
    argument: 'IMAGE',
    help: 'the image whose bitmaps are merged',
  },
  sourceFormat: {
    short: 'F',
    long: 'source-format',
    argument: 'FORMAT',
    help: 'format of the image of -b',
  },
  ...shared.writerOptions,
} as const satisfies OptionSpecs<string>;

const actions = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const;
/** One of them, with its argument. */
interface Action {
  readonly key: (typeof actions)[number];
  readonly value: string | undefined;
}

/** The command. */
export const bitmapCommand: Command = {
  name: 'bitmap',
  summary: 'Begin, change or give up persistent bitmaps',
  operands: 'IMAGE BITMAP',
  options,
  examples: [
    'bitmap --add disk.qcow2 since-monday',
    'bitmap --merge since-monday -b old.qcow2 -F qcow2 disk.qcow2 all',
    'bitmap --disable --clear disk.qcow2 since-monday',
    'bitmap --remove disk.qcow2 since-monday',
  ],
  async run(words, session) {
    const { signal } = session;
    const { line, actions, granularity, filename, bitmap } = parse(words);
    const objects = readObjects(line.all('object'));
    const aio = shared.parseAio(line.last('aio'));
    const name = parseImageName(filename, {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
      forWriting: true,
      isAlone: true,
    });
    await using image = await openNamed(name, { signal, aio, backing: 'ignore' });
    const sourceFile = line.last('sourceFile');
    await using source =
      sourceFile === undefined
        ? undefined
        : await openNamed(
            parseImageName(sourceFile, {
              format: line.last('sourceFormat'),
              objects,
              isAlone: true,
            }),
            { signal, aio, readOnly: true, backing: 'ignore' },
          );
    for (const action of actions) {
      try {
        await perform(image, source, bitmap, action, { granularity, signal });
      } catch (error) {
        if (signal.aborted || !(error instanceof CowherdError)) throw error;
        throw new CliError(bitmapText(error, { action: action.key, bitmap, image: filename }), {
          cause: error,
        });
      }
    }
    return 0;
  },
};

/** What a command line says, once it is known to make sense. */
function parse(words: readonly string[]): {
  readonly line: ParsedCommandLine<keyof typeof options>;
  readonly actions: readonly Action[];
  readonly granularity: number | undefined;
  readonly filename: string;
  readonly bitmap: string;
} {
  const line = parseCommandLine('bitmap', options, words);
  const granularity = parseGranularity(line.last('granularity'));
  const chosen = line.among(actions);
  const has = (key: keyof typeof options): boolean => line.has(key);
  const refuse = (isWrong: boolean, why: string): void => {
    if (isWrong) throw new CliError(why);
  };
  refuse(
    chosen.length === 0,
    'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge',
  );
  refuse(granularity !== undefined && !has('add'), 'granularity only supported with --add');
  refuse(has('sourceFormat') && !has('sourceFile'), '-F only supported with -b');
  refuse(
    has('sourceFile') && !has('merge'),
    'Merge bitmap source file only supported with --merge',
  );
  refuse(line.operands.length !== 2, 'Expecting filename and bitmap name');
  const [filename, bitmap] = line.operands;
  return { line, actions: chosen, granularity, filename, bitmap };
}

async function perform(
  image: Image,
  source: Image | undefined,
  bitmap: string,
  { key, value = '' }: Action,
  options: { readonly granularity: number | undefined; readonly signal: AbortSignal },
): Promise<void> {
  const { bitmaps } = image;
  const { signal } = options;
  if (key === 'add') await bitmaps.add(bitmap, options);
  else if (key === 'merge') {
    await bitmaps.merge(bitmap, source === undefined ? value : { image: source, name: value }, {
      signal,
    });
  } else await bitmaps[key](bitmap, { signal });
}

/** The granularity, of which QEMU looks at the lower 32 bits; undefined for one that is not said. */
function parseGranularity(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === 'invalid') throw new CliError(`Invalid granularity specified: '${text}'.`);
  if (size === 'out-of-range') {
    throw new CliError('Invalid granularity specified. Must be between 0 and 9223372036854775807.');
  }
  return size === 0n ? undefined : Number(size % 2n ** 32n);
}
