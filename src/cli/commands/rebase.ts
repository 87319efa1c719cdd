/** `cowherd rebase`: makes an image stand on another one. */
import { CowherdError } from '../../errors.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { formatByDriver, isReadableFormat } from '../../image/names/formats.js';
import { rebase } from '../../jobs/rebase.js';
import { CliError, usageError } from '../process/cli-error.js';
import * as parse from '../options/convert-options.js';
import { parseImageName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { rebaseText } from '../text/failures.js';
import { progressDisplay } from '../text/progress.js';
import type { Command } from './command.js';
import { tellingFindings } from './open.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.quietOption,
  ...shared.progressOption,
  ...shared.writerOptions,
  cache: { short: 't', long: 'cache', argument: 'MODE', help: 'cache mode of the image' },
  backing: {
    short: 'b',
    long: 'backing',
    argument: 'BACKING',
    help: 'the image to stand on, relative to the image; "" for none any more',
  },
  backingFormat: {
    short: 'F',
    long: 'backing-format',
    argument: 'FORMAT',
    help: 'format of that one, which has to be said',
  },
  backingCache: {
    short: 'T',
    long: 'backing-cache',
    argument: 'MODE',
    help: 'cache mode of that one',
  },
  unsafe: {
    short: 'u',
    long: 'backing-unsafe',
    help: 'change the name alone, without a look at either image below',
  },
  compress: { short: 'c', long: 'compress', help: 'compress what is written into the image' },
  forceShare: {
    short: 'U',
    long: 'force-share',
    help: 'read the image to stand on even while another process writes to it',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const rebaseCommand: Command = {
  name: 'rebase',
  summary: 'Make an image stand on another backing file, or on none',
  operands: 'IMAGE',
  options,
  examples: [
    'rebase -b new.qcow2 -F qcow2 overlay.qcow2',
    'rebase -u -b moved/base.raw -F raw overlay.qcow2',
    'rebase -b "" overlay.qcow2',
  ],
  async run(words, session) {
    const line = parseCommandLine('rebase', options, words);
    const [filename, ...more] = line.operands as readonly [string?, ...string[]];
    if (filename === undefined || more.length > 0) {
      throw usageError('rebase', 'Expecting one image file name');
    }
    const backing = line.last('backing');
    const unsafe = line.has('unsafe');
    if (backing === undefined && !unsafe) {
      throw usageError('rebase', 'Must specify backing file (-b) or use unsafe mode (-u)');
    }
    const { signal } = session;
    const objects = readObjects(line.all('object'));
    const cache = parse.parseTargetCache(line.last('cache'));
    const backingCache = shared.parseSourceCache(line.last('backingCache'));
    const backingFormat = parseBackingFormat(line.last('backingFormat'));
    const aio = shared.parseAio(line.last('aio'));
    const imageOpts = line.has('imageOpts');
    const format = line.last('format');
    const name = parseImageName(filename, { format, objects, imageOpts, forWriting: true });
    const progress = progressDisplay(session, {
      wanted: line.has('progress'),
      argument: line.last('progress'),
      quiet: line.has('quiet'),
      stepPercent: 1,
    });
    try {
      await rebase(name.path, {
        backing,
        backingFormat,
        unsafe,
        compress: line.has('compress'),
        image: { cache, aio, ...tellingFindings(session), ...name.settings, format: name.format },
        backingImage: {
          ...{ cache: backingCache, aio, forceShare: line.has('forceShare') },
          secrets: objects.secrets,
        },
        signal,
        onProgress: progress.update,
      });
      progress.finish();
    } catch (error) {
      if (signal.aborted || !(error instanceof CowherdError)) throw error;
      throw new CliError(rebaseText(error, name, backing ?? ''), { cause: error });
    } finally {
      await progress.end();
    }
    return 0;
  },
};

function parseBackingFormat(name: string | undefined): ImageFormat | undefined {
  if (name === undefined || isReadableFormat(formatByDriver(name))) return name;
  throw new CliError(`Invalid format name: '${name}'`);
}
