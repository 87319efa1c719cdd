/** `cowherd commit`: writes what an image holds into the one below it. */
import { CowherdError } from '../../errors.js';
import { commit } from '../../jobs/commit.js';
import { CliError, usageError } from '../process/cli-error.js';
import * as parse from '../options/convert-options.js';
import { parseImageName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { jobText } from '../text/failures.js';
import { progressDisplay } from '../text/progress.js';
import type { Command } from './command.js';
import { tellingFindings } from './open.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.quietOption,
  ...shared.progressOption,
  ...shared.writerOptions,
  cache: { short: 't', long: 'cache', argument: 'MODE', help: 'cache mode of the images' },
  base: {
    short: 'b',
    long: 'base',
    argument: 'BASE',
    help: 'the image of the backing chain that is written to, instead of the one right below; implies -d',
  },
  drop: { short: 'd', long: 'drop', help: 'leave the image as it is, instead of emptying it' },
  rateLimit: {
    short: 'r',
    long: 'rate',
    argument: 'RATE',
    help: 'bytes a second at most, with a suffix such as 10M',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const commitCommand: Command = {
  name: 'commit',
  summary: 'Write what an image holds into its backing file',
  operands: 'IMAGE',
  options,
  examples: ['commit overlay.qcow2', 'commit -b root.qcow2 overlay.qcow2'],
  async run(words, session) {
    const line = parseCommandLine('commit', options, words);
    const [filename, ...more] = line.operands as readonly [string?, ...string[]];
    if (filename === undefined || more.length > 0) {
      throw usageError('commit', 'Expecting one image file name');
    }
    const { signal } = session;
    const objects = readObjects(line.all('object'));
    const cache = parse.parseTargetCache(line.last('cache'));
    const rateLimit = parse.parseRateLimit(line.last('rateLimit'));
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
      const aio = shared.parseAio(line.last('aio'));
      await commit(name.path, {
        base: line.last('base'),
        empty: !line.has('base') && !line.has('drop'),
        rateLimit,
        image: { cache, aio, ...tellingFindings(session), ...name.settings, format: name.format },
        signal,
        onProgress: progress.update,
      });
      progress.finish();
    } catch (error) {
      if (signal.aborted || !(error instanceof CowherdError)) throw error;
      const asQemuImg = jobText(error, name, true);
      throw new CliError(jobText(error, name), { cause: error, asQemuImg });
    } finally {
      await progress.end();
    }
    if (!line.has('quiet')) await session.print('Image committed.\n');
    return 0;
  },
};
