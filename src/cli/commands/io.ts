/** `cowherd io`: an image exercised by commands, as qemu-io does it. */
import { runInput, runLines } from '../io/run-lines.js';
import { Exerciser } from '../io/exerciser.js';
import { parseWays, plainOpening } from '../io/opening.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import { openNamed } from './open.js';
import { openOverlay } from './temporary-overlay.js';

const options = {
  ...shared.helpOption,
  command: {
    short: 'c',
    long: 'cmd',
    argument: 'COMMAND',
    help: 'run this command; left out, commands are read from standard input',
  },
  ...shared.formatOption,
  imageOpts: shared.readerOptions.imageOpts,
  object: shared.readerOptions.object,
  readOnly: { short: 'r', long: 'read-only', help: 'open the image to read only' },
  snapshot: {
    short: 's',
    long: 'snapshot',
    help: 'write into an image above it, which is gone at the end',
  },
  noCache: { short: 'n', long: 'nocache', help: 'the same as -t none' },
  copyOnRead: {
    short: 'C',
    long: 'copy-on-read',
    help: 'keep in the image what is read from below it',
  },
  misalign: {
    short: 'm',
    long: 'misalign',
    help: 'let buffers begin where direct access cannot go',
  },
  nativeAio: { short: 'k', long: 'native-aio', help: 'the same as -i native' },
  aio: {
    short: 'i',
    long: 'aio',
    argument: 'ENGINE',
    help: 'I/O engine: io_uring, threads or native',
  },
  cache: { short: 't', long: 'cache', argument: 'MODE', help: 'cache mode of the image' },
  discard: {
    short: 'd',
    long: 'discard',
    argument: 'MODE',
    help: 'whether discarded clusters are freed: unmap or ignore',
  },
  trace: { short: 'T', long: 'trace', argument: 'PATTERN', help: 'taken, and changes nothing' },
  forceShare: shared.readerOptions.forceShare,
  queues: {
    ...shared.queuesOption.queues,
    help: 'queues into the image: requests go to each in turn, or to the one that `queue K` says',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const ioCommand: Command = {
  name: 'io',
  summary: 'Read and write an image by single commands, to try it',
  operands: '[IMAGE]',
  options,
  link: 'qemu-io',
  examples: [
    "io -c 'write -P 0xa5 0 64k' -c 'read -P 0xa5 0 64k' disk.qcow2",
    "io -f raw -c 'aio_write 0 1M' -c 'aio_read 1M 1M' -c aio_flush disk.raw",
    'io --queues 4 disk.qcow2 < commands.txt',
    'io -c help',
  ],
  async run(words, session) {
    const name = session.name === ioCommand.link ? '' : ioCommand.name;
    const line = parseCommandLine(name, options, words);
    if (line.operands.length > 1) throw usageError(name, 'Expecting one image file name');
    const opening = {
      ...plainOpening,
      format: line.last('format'),
      readOnly: line.has('readOnly'),
      forceShare: line.has('forceShare'),
      isSnapshot: line.has('snapshot'),
      copiesOnRead: line.has('copyOnRead'),
      ...parseWays({
        cache: line.last('cache') ?? (line.has('noCache') ? 'none' : undefined),
        discard: line.last('discard'),
        aio: line.last('aio') ?? (line.has('nativeAio') ? 'native' : undefined),
      }),
    };
    const isList = line.has('imageOpts');
    if (isList && opening.format !== undefined) {
      throw new CliError('--image-opts and -f are mutually exclusive');
    }
    await using exerciser = new Exerciser(session, {
      openers: { openNamed, openOverlay },
      isByLists: isList,
      objects: readObjects(line.all('object')),
      queues: shared.parseQueues(line.last('queues')) ?? 1,
      isMisaligned: line.has('misalign'),
    });
    const [given] = line.operands as readonly [string?];
    if (given !== undefined) {
      await exerciser.open({ ...opening, ...(isList ? { list: given } : { given }) });
    }
    const lines = line.all('command');
    // The real tool has one wherever its lines come from.
    const hasPrompt = session.name === ioCommand.link || session.stdin.isTTY === true;
    const isGood =
      lines.length > 0 ? await runLines(lines, exerciser) : await runInput(exerciser, hasPrompt);
    await exerciser.close();
    return isGood ? 0 : 1;
  },
};
