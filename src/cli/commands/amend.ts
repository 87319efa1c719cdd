/** `cowherd amend`: has an image be of another version, with other features. */
import { CowherdError } from '../../errors.js';
import { formatNames } from '../../image/names/formats.js';
import { CliError, usageError } from '../process/cli-error.js';
import { amendOptionsHelp, parseAmendOptions } from '../options/amend-options.js';
import * as parse from '../options/convert-options.js';
import { parseImageName } from '../options/image-name.js';
import { asksForHelp, joinOptionLists } from '../options/option-list.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import type { Session } from '../process/session.js';
import { progressDisplay } from '../text/progress.js';
import type { Command } from './command.js';
import { openNamed, tellingFindings } from './open.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.quietOption,
  ...shared.progressOption,
  ...shared.writerOptions,
  cache: { short: 't', long: 'cache', argument: 'MODE', help: 'cache mode of the image' },
  options: {
    short: 'o',
    long: 'options',
    argument: 'LIST',
    help: 'what is to change as name=value,name=value; `-o help` lists what can',
  },
  force: {
    long: 'force',
    help: 'allow what loses the disk: the last password given up, one written over',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const amendCommand: Command = {
  name: 'amend',
  summary: 'Change the version, the features or the size of an image',
  operands: 'IMAGE',
  options,
  examples: [
    'amend -o compat=1.1,lazy_refcounts=on disk.qcow2',
    'amend -o refcount_bits=64 disk.qcow2',
    'amend --object secret,id=new,file=password -o encrypt.state=active,encrypt.new-secret=new disk.qcow2',
    'amend -f qcow2 -o help',
  ],
  async run(words, session) {
    const line = parseCommandLine('amend', options, words);
    const lists = line.all('options');
    if (lists.length === 0) throw usageError('amend', 'Must specify options (-o)');
    const list = joinOptionLists(lists);
    const format = line.last('format');
    if (format !== undefined && asksForHelp(list)) {
      if (!formatNames().includes(format)) throw new CliError(`Unknown file format '${format}'`);
      await session.print(amendOptionsHelp(format));
      return 0;
    }
    if (line.operands.length !== 1) throw new CliError('Expecting one image file name');
    const objects = readObjects(line.all('object'));
    const cache = parse.parseTargetCache(line.last('cache'));
    const name = parseImageName(line.operands[0], {
      format,
      objects,
      imageOpts: line.has('imageOpts'),
      forWriting: true,
    });
    const progress = progressDisplay(session, {
      wanted: line.has('progress'),
      argument: line.last('progress'),
      quiet: line.has('quiet'),
      stepPercent: 1,
    });
    const { signal } = session;
    try {
      await using image = await openNamed(name, {
        signal,
        ...tellingFindings(session),
        cache,
        aio: shared.parseAio(line.last('aio')),
      });
      if (asksForHelp(list)) {
        await session.print(amendOptionsHelp(image.format));
        return 0;
      }
      const changes = parseAmendOptions(image.format, list, objects.secrets);
      const encrypt = changes.encrypt && { ...changes.encrypt, force: line.has('force') };
      await image.amend({ ...changes, encrypt, signal, onProgress: progress.update });
      progress.finish();
    } catch (error) {
      if (signal.aborted || !(error instanceof CowherdError)) throw error;
      throw new CliError(amendText(error, session), { cause: error });
    } finally {
      await progress.end();
    }
    return 0;
  },
};

/** Why an image could not be amended, in qemu-img's words. */
function amendText({ message, operation, why = message }: CowherdError, { name }: Session): string {
  if (operation !== 'name backing') return why;
  return `${why}\nYou can use '${name} rebase' instead.`;
}
