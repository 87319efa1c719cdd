/** `cowherd convert`: copies the content of images into a new or existing one. */
import { CowherdError } from '../../errors.js';
import type { CreateOptions } from '../../image/api/options.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { canCompress, defaultFormatName, isReadableFormat } from '../../image/names/formats.js';
import { isSequential } from '../../image/graph/create.js';
import { convert } from '../../jobs/convert.js';
import { convertToStream } from '../../jobs/convert-to-stream.js';
import type { ConvertOptions } from '../../jobs/convert-options.js';
import { readDisk } from '../../jobs/read-disk.js';
import { checksumLines, parseChecksum } from '../options/checksums.js';
import { CliError } from '../process/cli-error.js';
import type { Command } from './command.js';
import * as parse from '../options/convert-options.js';
import { CreateOptionValues, createOptionsHelp } from '../options/create-options.js';
import { creatableFormat } from '../options/formats.js';
import { isJsonName } from '../../image/names/specification.js';
import type { ImageName } from '../options/image-name.js';
import { parseImageName, pathOfName } from '../options/image-name.js';
import { type NamedTarget, conversionText } from '../text/failures.js';
import { asksForHelp, joinOptionLists } from '../options/option-list.js';
import { readObjects } from '../options/objects.js';
import type { ParsedCommandLine } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import { progressDisplay } from '../text/progress.js';
import type { Session } from '../process/session.js';
import * as shared from '../options/shared-options.js';
import { statsTable } from '../text/stats-table.js';
import { tellingFindings } from './open.js';
import {
  standardInput,
  standardInputName,
  standardInputPath,
  standardOutputName,
  standardStream,
  writeStandardOutput,
} from '../process/standard-streams.js';

type Line = ParsedCommandLine<keyof typeof parse.convertOptions>;

/** The command. */
export const convertCommand: Command = {
  name: 'convert',
  summary: 'Copy the content of images into another one, of the same or another format',
  operands: 'SOURCE... TARGET',
  options: parse.convertOptions,
  async run(words, session) {
    const line = parseCommandLine('convert', parse.convertOptions, words);
    const lists = line.all('options');
    const list = lists.length > 0 ? joinOptionLists(lists) : undefined;
    if (list !== undefined && asksForHelp(list)) {
      await session.print(createOptionsHelp(targetFormat(line), line.operands.at(-1)));
      return 0;
    }
    refuseContradictions(line, list);
    const target = line.operands.at(-1);
    const given = line.operands.slice(0, -1);
    if (target === undefined || given.length === 0) {
      throw new CliError('Must specify image file name');
    }
    const plan = readPlan(line);
    const wanted = parseChecksum(line.last('checksum'));
    const toOutput = target === standardStream;
    const progress = progressDisplay(session, {
      wanted: line.has('progress'),
      argument: line.last('progress'),
      quiet: line.has('quiet'),
      onErrors: toOutput,
      stepPercent: 1,
    });
    try {
      const sources = given.map((name) => sourceName(line, name));
      if (given.filter((name) => name === standardStream).length > 1) {
        throw new CliError('Standard input can be read only once');
      }
      if (toOutput && wanted !== undefined && wanted.expected === undefined) {
        throw new CliError('Digests are not printed where the disk is');
      }
      const hooks = {
        signal: session.signal,
        onProgress: progress.update,
        roughProgress: progress.onDemand,
        checksum: wanted,
      };
      if (toOutput) await convertToOutput(line, list, plan, sources, session, hooks);
      else await convertToFile(line, list, plan, sources, target, session, hooks);
      progress.finish();
    } finally {
      await progress.end();
    }
    return 0;
  },
};

type Hooks = Pick<
  NonNullable<Parameters<typeof convert>[2]>,
  'signal' | 'onProgress' | 'roughProgress' | 'checksum'
>;

/** The options whose arguments are checked before anything is opened. */
function readPlan(line: Line) {
  return {
    sparseSize: parse.parseSparseSize(line.last('sparseSize')),
    parallel: parse.parseParallel(line.last('parallel')),
    queues: shared.parseQueues(line.last('queues')),
    rateLimit: parse.parseRateLimit(line.last('rateLimit')),
    snapshot: parse.parseSnapshot(line.last('snapshot')),
    targetCache: parse.parseTargetCache(line.last('targetCache')),
    sourceCache: shared.parseSourceCache(line.last('sourceCache')),
    aio: shared.parseAio(line.last('aio')),
    forceShare: line.has('forceShare'),
    untrusted: line.has('untrusted'),
  };
}

type Plan = ReturnType<typeof readPlan>;

function refuseContradictions(line: Line, list: string | undefined): void {
  const skipCreate = line.has('skipCreate');
  const refuse = (isWrong: boolean, message: string): void => {
    if (isWrong) throw new CliError(message);
  };
  readObjects(line.all('object'));
  refuse(
    line.has('targetImageOpts') && line.has('targetFormat'),
    '--image-opts and --format are mutually exclusive',
  );
  refuse(line.has('targetImageOpts') && !skipCreate, '--target-image-opts requires use of -n flag');
  refuse(skipCreate && list !== undefined, '-o has no effect when skipping image creation');
  refuse(line.has('targetIsZero') && !skipCreate, '--target-is-zero requires use of -n flag');
  refuse(
    line.has('skipBrokenBitmaps') && !line.has('bitmaps'),
    'Use of --skip-broken-bitmaps requires --bitmaps',
  );
  refuse(
    line.has('copyRange') && line.has('sparseSize'),
    'Cannot enable copy offloading when -S is used',
  );
  refuse(
    line.has('copyRange') && line.has('compress'),
    'Cannot enable copy offloading when -c is used',
  );
  refuse(
    line.has('copyRange') && line.has('salvage'),
    'Cannot use copy offloading in salvaging mode',
  );
  if (line.operands.length <= 2) return;
  refuse(line.has('snapshot'), 'No support for concatenating multiple snapshot');
  refuse(
    line.has('backing'),
    'Having a backing file for the target makes no sense when concatenating multiple input images',
  );
}

function sourceName(line: Line, name: string): ImageName {
  const format = line.last('format');
  if (name === standardStream) {
    const { format: known } = parseImageName(name, { format });
    return { given: name, path: standardInputPath() ?? standardInputName, format: known };
  }
  const imageOpts = line.has('imageOpts') || line.has('sourceImageOpts');
  return parseImageName(name, { format, imageOpts, objects: readObjects(line.all('object')) });
}

/** What the library reads of a source: a name, or standard input as it comes. */
function sourceOf({ path }: ImageName, session: Session): string | AsyncIterable<Uint8Array> {
  return path === standardInputName ? standardInput(session) : path;
}

function targetFormat(line: Line): ImageFormat {
  return creatableFormat(line.last('targetFormat') ?? defaultFormatName);
}

async function convertToOutput(
  line: Line,
  list: string | undefined,
  plan: Plan,
  sources: readonly ImageName[],
  session: Session,
  hooks: Hooks,
): Promise<void> {
  const format = targetFormat(line);
  const isRaw = format === defaultFormatName && list === undefined;
  const created = isRaw ? {} : createOptions(line, format, list, standardOutputName);
  const other = (['skipCreate', 'compress', 'backing', 'bitmaps'] as const).some((key) =>
    line.has(key),
  );
  if (other || !(isRaw || (await isSequential(format, created)))) {
    throw new CliError(
      'Standard output can only be written as a new raw or stream-optimized image',
    );
  }
  if (session.stdout.isTTY === true) {
    throw new CliError('A disk is not written to a terminal; give a file name, or redirect');
  }
  try {
    const read = sources.map((source) => sourceOf(source, session));
    const options = { ...plan, ...hooks, ...sourceOptions(sources) };
    if (isRaw) {
      await readDisk(read, options, (disk) => writeStandardOutput(disk, session));
    } else {
      const print = (bytes: Uint8Array): Promise<void> => session.print(bytes);
      const target = { ...options, to: format, options: created };
      await convertToStream(read, standardOutputName, print, target);
    }
  } catch (error) {
    if (session.signal.aborted || !(error instanceof CowherdError)) throw error;
    throw conversionFailure(error, sources);
  }
}

/** A name of options is of an image that is there. */
function targetName(line: Line, given: string): ImageName {
  const objects = readObjects(line.all('object'));
  if (line.has('targetImageOpts')) {
    return parseImageName(given, { imageOpts: true, forWriting: true, objects });
  }
  if (line.has('skipCreate') && isJsonName(given)) {
    const format = line.last('targetFormat');
    return parseImageName(given, { forWriting: true, format, objects });
  }
  const { secrets } = objects;
  return { given, path: targetPath(given), format: targetFormat(line), settings: { secrets } };
}

/** What the sources' names say of how they are opened. */
function sourceOptions(
  sources: readonly ImageName[],
): Pick<ConvertOptions, 'from' | 'sourceOptions' | 'streamName'> {
  const formats = new Set(sources.map((source) => source.format));
  if (formats.size > 1) throw new CliError('All sources have to be of one format');
  return {
    from: sources[0].format,
    sourceOptions: sources.map(({ settings }) => settings),
    streamName: standardInputName,
  };
}

async function convertToFile(
  line: Line,
  list: string | undefined,
  plan: Plan,
  sources: readonly ImageName[],
  given: string,
  session: Session,
  hooks: Hooks,
): Promise<void> {
  const target = targetName(line, given);
  const format = target.format ?? defaultFormatName;
  const created = line.has('skipCreate')
    ? undefined
    : createOptions(line, format, list, target.path);
  if (line.has('compress') && !canCompress(format)) {
    throw new CliError('Compression not supported for this file format');
  }
  const how = sourceOptions(sources);
  let tables = '';
  let digests = '';
  try {
    await convert(
      sources.map((source) => sourceOf(source, session)),
      target.path,
      {
        ...plan,
        ...hooks,
        ...how,
        to: format,
        onChecksum: (result, index) => {
          if (hooks.checksum === undefined || hooks.checksum.expected !== undefined) return;
          digests += checksumLines(hooks.checksum.algorithm, sources[index].given, result);
        },
        targetOptions: target.settings,
        onTargetFinding: tellingFindings(session).onFinding,
        onTargetWarning: (message) => {
          session.warn(message);
        },
        options: created,
        backing: created === undefined ? line.last('backing') : created.backingFile,
        backingFormat: created?.backingFormat,
        compress: line.has('compress'),
        skipCreate: line.has('skipCreate'),
        targetIsZero: line.has('targetIsZero'),
        bitmaps: line.has('bitmaps'),
        skipBrokenBitmaps: line.has('skipBrokenBitmaps'),
        salvage: line.has('salvage'),
        copyOffload: line.has('copyRange'),
        outOfOrder: line.has('outOfOrder'),
        onStats: (targetStats, sourceStats) => {
          sourceStats.forEach((stats, index) => {
            tables += statsTable(`Queues of '${sources[index].given}':`, stats);
          });
          tables += statsTable(`Queues of '${target.given}':`, targetStats);
        },
        onWarning: (message) => {
          if (!line.has('quiet')) session.warn(message);
        },
      },
    );
  } catch (error) {
    if (session.signal.aborted || !(error instanceof CowherdError)) throw error;
    const written = { ...target, format, created: !line.has('skipCreate') };
    throw conversionFailure(error, sources, written);
  }
  if (digests !== '') await session.print(digests);
  if (line.has('stats')) await session.print(tables);
}

function targetPath(given: string): string {
  return pathOfName(given, (message) => new CliError(`${given}: ${message}`));
}

/** The options of the image to be made at a path. */
function createOptions(
  line: Line,
  format: ImageFormat,
  list: string | undefined,
  path: string,
): CreateOptions {
  const values = new CreateOptionValues(format, list, path);
  for (const [option, name, label] of [
    ['backing', 'backing_file', 'Backing file'],
    ['backingFormat', 'backing_fmt', 'Backing format'],
  ] as const) {
    const value = line.last(option);
    if (value === undefined) continue;
    if (!values.knows(name)) {
      throw new CliError(`${label} not supported for file format '${format}'`);
    }
    values.set(name, value);
  }
  const backingFormat = values.get('backing_fmt');
  if (values.get('backing_file') !== undefined && backingFormat === undefined) {
    throw new CliError('Use of backing file requires explicit backing format');
  }
  const isEncrypted = ['encryption', 'encrypt.format'].some(
    (name) => (values.get(name) ?? 'off') !== 'off',
  );
  if (line.has('compress') && canCompress(format) && isEncrypted) {
    throw new CliError('Compression and encryption not supported at the same time');
  }
  const preallocation = values.get('preallocation') ?? 'off';
  if (line.has('compress') && canCompress(format) && preallocation !== 'off') {
    throw new CliError('Compression and preallocation not supported at the same time');
  }
  const target = line.operands.at(-1) ?? '';
  const prefix = `${target}: error while converting ${format}: `;
  if (backingFormat !== undefined && !isReadableFormat(backingFormat)) {
    throw new CliError(`${prefix}Unknown driver '${backingFormat}'`);
  }
  try {
    return values.toCreateOptions(readObjects(line.all('object')).secrets);
  } catch (error) {
    if (error instanceof CliError) throw new CliError(`${prefix}${error.message}`);
    throw error;
  }
}

function conversionFailure(
  error: CowherdError,
  sources: readonly ImageName[],
  target?: NamedTarget,
): CliError {
  // What is wrong with a stream is no failure to open a file.
  const isOfStream = error.filename === standardInputName;
  const told = (isBrief: boolean): string =>
    isOfStream ? error.message : conversionText(error, sources, target, isBrief);
  return new CliError(told(false), { cause: error, asQemuImg: told(true) });
}
