/** `cowherd create`: makes an image file. */
import { CowherdError } from '../../errors.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { createImage } from '../../image/graph/create.js';
import { openImage } from '../../image/graph/open.js';
import { resolveReference } from '../../image/names/reference.js';
import {
  formatByDriver,
  defaultFormatName,
  formatRefusal,
  isReadableFormat,
} from '../../image/names/formats.js';
import { parseSize } from '../../size.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import { CreateOptionValues, createOptionsHelp } from '../options/create-options.js';
import { creatableFormat } from '../options/formats.js';
import { pathOfName } from '../options/image-name.js';
import { asksForHelp, joinOptionLists } from '../options/option-list.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';

const options = {
  ...shared.helpOption,
  ...shared.quietOption,
  format: { short: 'f', long: 'format', argument: 'FORMAT', help: 'such as qcow2; default raw' },
  options: {
    short: 'o',
    long: 'options',
    argument: 'LIST',
    help: 'options of the format as name=value,name=value; `-o help` lists them',
  },
  backing: { short: 'b', long: 'backing', argument: 'NAME', help: 'the image below the new one' },
  backingFormat: { short: 'F', long: 'backing-format', argument: 'FORMAT', help: 'its format' },
  unchecked: { short: 'u', long: 'backing-unsafe', help: 'do not look at the image below' },
  object: shared.readerOptions.object,
} as const satisfies OptionSpecs<string>;

/** The command. */
export const createCommand: Command = {
  name: 'create',
  summary: 'Make a new image',
  operands: 'IMAGE [SIZE]',
  options,
  async run(words, session) {
    const line = parseCommandLine('create', options, words);
    const named = line.last('format') ?? defaultFormatName;
    const format = formatByDriver(named);
    const lists = line.all('options');
    const list = lists.length > 0 ? joinOptionLists(lists) : undefined;
    if (list !== undefined && asksForHelp(list)) {
      const [target] = line.operands as (string | undefined)[];
      await session.print(createOptionsHelp(creatableFormat(format), target));
      return 0;
    }
    const [filename, sizeText, ...others] = line.operands as (string | undefined)[];
    if (filename === undefined) throw usageError('create', 'Expecting image file name');
    const { secrets } = readObjects(line.all('object'));
    const size = sizeText === undefined ? undefined : parseImageSize(sizeText);
    if (others.length > 0) throw usageError('create', `Unexpected argument: ${others[0] ?? ''}`);
    const path = pathOfName(filename, (message) => new CliError(`${filename}: ${message}`));
    await failingWith(filename, async () => {
      const values = new CreateOptionValues(creatableFormat(format), list, path);
      takeBacking(values, line.last('backing'), line.last('backingFormat'));
      takeSize(values, size);
      await settleBacking(values, path, line.has('unchecked'));
      if (values.get('size') === undefined) {
        throw new CliError('Image creation needs a size parameter');
      }
      if (!line.has('quiet')) {
        await session.print(values.announcement(filename, named));
        // What then fails is told after it, in one pipe too.
        await session.flush();
      }
      await createImage(path, {
        ...values.toCreateOptions(secrets),
        format: values.format,
        size: values.get('size') ?? 0,
        backingUnchecked: true,
        onWarning: (message) => {
          session.warn(message);
        },
        signal: session.signal,
      });
    });
    return 0;
  },
};

function parseImageSize(text: string): bigint {
  const size = parseSize(text);
  if (size === 'out-of-range') {
    throw new CliError('Invalid image size specified. Must be between 0 and 9223372036854775807.');
  }
  if (size === 'invalid') throw new CliError(`Invalid image size specified: '${text}'.`);
  return size;
}

/** Puts the image's name in front of every failure. */
async function failingWith(filename: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const isTold = error instanceof CowherdError && error.code === 'ERR_COWHERD_ABORTED';
    if (!isTold && (error instanceof CliError || error instanceof CowherdError)) {
      throw new CliError(`${filename}: ${bareText(error, filename)}`, { cause: error });
    }
    throw error;
  }
}

/** What is wrong, without the image's name, which stands in front of it already. */
function bareText(error: CliError | CowherdError, filename: string): string {
  const isOfImage = error instanceof CowherdError && error.filename === filename;
  // Why a file cannot be opened is told with its name, as of a layer below.
  return isOfImage && error.operation === undefined ? (error.why ?? error.message) : error.message;
}

function takeBacking(
  values: CreateOptionValues,
  file: string | undefined,
  format: string | undefined,
): void {
  if (file !== undefined) {
    if (!values.knows('backing_file')) {
      throw new CliError(`Backing file not supported for file format '${values.format}'`);
    }
    values.set('backing_file', file);
  }
  if (format !== undefined) {
    if (!values.knows('backing_fmt')) {
      throw new CliError(`Backing format not supported for file format '${values.format}'`);
    }
    values.set('backing_fmt', format);
  }
}

function takeSize(values: CreateOptionValues, size: bigint | undefined): void {
  if (size === undefined) return;
  if (values.get('size') !== undefined) {
    throw new CliError('The image size must be specified only once');
  }
  values.set('size', String(size));
}

/** Looks at the image below, and takes its size where no other is known. */
async function settleBacking(
  values: CreateOptionValues,
  path: string,
  unchecked: boolean,
): Promise<void> {
  const name = values.get('backing_file');
  const format = values.get('backing_fmt');
  if (name === undefined) return;
  if (name === '') throw new CliError('Expected backing file name, got empty string');
  if (name === path) {
    throw new CliError(
      'Error: Trying to create an image with the same filename as the backing file',
    );
  }
  const noFormat = 'Backing file specified without backing format';
  if (unchecked) {
    if (format === undefined) throw new CliError(noFormat);
    return;
  }
  const below = await lookAt(resolveReference(path, name), format);
  if (format === undefined) throw new CliError(`${noFormat}\nDetected format of ${below.format}.`);
  if (values.get('size') === undefined) values.set('size', String(below.size));
}

async function lookAt(
  path: string,
  named: string | undefined,
): Promise<{ format: ImageFormat; size: number }> {
  const format = formatByDriver(named);
  try {
    if (format !== undefined && !isReadableFormat(format)) {
      throw new CliError(formatRefusal(format, path));
    }
    await using image = await openImage(path, {
      ...{ format, readOnly: true, forceShare: true },
      // What it holds is not looked at.
      forInfo: true,
    });
    return { format: image.format, size: image.size };
  } catch (error) {
    if (!(error instanceof CowherdError) && !(error instanceof CliError)) throw error;
    throw new CliError(`${error.message}\nCould not open backing image.`, { cause: error });
  }
}
