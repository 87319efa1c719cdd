/** `cowherd measure`: how large an image would be. */
import { CowherdError } from '../../errors.js';
import type { CreateOptions } from '../../image/api/options.js';
import { defaultFormatName } from '../../image/names/formats.js';
import { type Measurement, measure } from '../../jobs/measure.js';
import { parseSize } from '../../size.js';
import { CliError, usageError } from '../process/cli-error.js';
import { parseSnapshot } from '../options/convert-options.js';
import { CreateOptionValues, createOptionsHelp } from '../options/create-options.js';
import { creatableFormat } from '../options/formats.js';
import { parseImageName } from '../options/image-name.js';
import { asksForHelp, joinOptionLists } from '../options/option-list.js';
import { type GivenObjects, readObjects } from '../options/objects.js';
import type { OptionSpecs, ParsedCommandLine } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { formatQemuJson } from '../text/qemu-json.js';
import type { Command } from './command.js';
import { openNamed } from './open.js';
import type { Session } from '../process/session.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.readerOptions,
  ...shared.outputOption,
  targetFormat: {
    short: 'O',
    long: 'target-format',
    argument: 'FORMAT',
    help: 'format of the image that would be made, raw or qcow2; default raw',
  },
  options: {
    short: 'o',
    long: 'target-format-options',
    argument: 'LIST',
    help: 'options of that image as name=value,name=value; `-o help` lists them',
  },
  size: { short: 's', long: 'size', argument: 'SIZE', help: 'of an empty disk of this size' },
  snapshot: {
    short: 'l',
    long: 'snapshot',
    argument: 'SNAPSHOT',
    help: 'of this internal snapshot, by id or name, or as snapshot.id=ID',
  },
} as const satisfies OptionSpecs<string>;

type Line = ParsedCommandLine<keyof typeof options>;

/** The command. */
export const measureCommand: Command = {
  name: 'measure',
  summary: 'Tell how large an image would be',
  operands: '[IMAGE]',
  options,
  examples: ['measure -O qcow2 --size 10G', 'measure -f raw -O qcow2 disk.raw'],
  async run(words, session) {
    const line = parseCommandLine('measure', options, words);
    const json = shared.wantsJson('measure', line.last('output'));
    const format = line.last('targetFormat') ?? defaultFormatName;
    const lists = line.all('options');
    const list = lists.length > 0 ? joinOptionLists(lists) : undefined;
    if (list !== undefined && asksForHelp(list)) {
      await session.print(createOptionsHelp(creatableFormat(format), undefined));
      return 0;
    }
    const size = readSize(line);
    const objects = readObjects(line.all('object'));
    const values = new CreateOptionValues(creatableFormat(format), list);
    const result = await measured(line, objects, size ?? values.get('size'), session, {
      ...values.toCreateOptions(objects.secrets),
      format,
    });
    await session.print(json ? `${formatQemuJson(jsonOf(result))}\n` : textOf(result));
    return 0;
  },
};

/** @throws CliError where there is no source, or more than one */
function readSize(line: Line): string | undefined {
  const text = line.last('size');
  if (line.operands.length > 1)
    throw usageError('measure', 'At most one filename argument is allowed.');
  if (text !== undefined && line.operands.length > 0) {
    throw usageError('measure', '--size N cannot be used together with a filename.');
  }
  if (text === undefined && line.operands.length === 0) {
    throw usageError('measure', 'Either --size N or one filename must be specified.');
  }
  const isOfImage = line.has('format') || line.has('snapshot') || line.has('imageOpts');
  if (text !== undefined && isOfImage) {
    throw usageError(
      'measure',
      '--image-opts, -f, and -l can only be used with a filename argument.',
    );
  }
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (typeof size === 'bigint') return String(size);
  throw new CliError(
    size === 'out-of-range'
      ? 'Invalid image size specified. Must be between 0 and 9223372036854775807.'
      : `Invalid image size specified: '${text}'.`,
  );
}

async function measured(
  line: Line,
  objects: GivenObjects,
  size: string | undefined,
  session: Session,
  target: CreateOptions & { readonly format: string },
): Promise<Measurement> {
  const { signal } = session;
  const filename = line.operands.at(0);
  if (filename === undefined) return await measure({ size: size ?? '0' }, target);
  const name = parseImageName(filename, {
    format: line.last('format'),
    objects,
    imageOpts: line.has('imageOpts'),
  });
  const snapshot = parseSnapshot(line.last('snapshot'));
  await using image = await openMeasured(name, {
    signal,
    readOnly: true,
    forceShare: line.has('forceShare'),
    untrusted: line.has('untrusted'),
    aio: shared.parseAio(line.last('aio')),
    ...(snapshot !== undefined && { snapshot }),
  });
  try {
    return await measure(image, { ...target, signal });
  } catch (error) {
    if (signal.aborted || !(error instanceof CowherdError)) throw error;
    throw new CliError(error.message, { cause: error });
  }
}

async function openMeasured(...given: Parameters<typeof openNamed>): ReturnType<typeof openNamed> {
  try {
    return await openNamed(...given);
  } catch (error) {
    const cause = error instanceof CliError ? error.cause : undefined;
    if (!(cause instanceof CowherdError) || cause.operation !== 'load snapshot') throw error;
    const { why = cause.message } = cause;
    throw new CliError(`Failed to load snapshot: ${why}`, { cause });
  }
}

function textOf({ required, fullyAllocated, bitmaps }: Measurement): string {
  const more = bitmaps === undefined ? '' : `bitmaps size: ${bitmaps}\n`;
  return `required size: ${required}\nfully allocated size: ${fullyAllocated}\n${more}`;
}

function jsonOf({ required, fullyAllocated, bitmaps }: Measurement): Record<string, number> {
  return {
    ...(bitmaps !== undefined && { bitmaps }),
    required,
    'fully-allocated': fullyAllocated,
  };
}
