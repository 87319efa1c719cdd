/** `cowherd mount`: the disk of an image as a file, for every program. */
import { serve } from '../../export/serve.js';
import { readObjects } from '../options/objects.js';
import { type OptionSpecs, parseCommandLine } from '../options/options.js';
import { usageError } from '../process/cli-error.js';
import { displayStats } from '../text/stats-display.js';
import type { Command } from './command.js';
import { interrupted, ServedImages, processorsOf, servingOptions, workersOf } from './serving.js';

const options = {
  ...servingOptions,
  allowOther: {
    long: 'allow-other',
    help: 'let other users see the file too, as far as its permissions go',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const mountCommand: Command = {
  name: 'mount',
  summary: 'Show the disk of an image as a file, until it is unmounted or a signal ends it',
  operands: 'IMAGE FILE',
  options,
  examples: ['mount -r disk.qcow2 disk.raw', 'mount --workers 4 disk.qcow2 disk-content.raw'],
  async run(words, session) {
    const line = parseCommandLine('mount', options, words);
    readObjects(line.all('object'));
    if (line.operands.length !== 2) throw usageError('mount', 'Expecting an image and a file');
    const [given, file] = line.operands;
    const workers = workersOf(line);
    const processors = processorsOf(line);
    const opened = new ServedImages();
    try {
      const image = await opened.open(given, line, session);
      const server = await serve([{ image }], {
        fuse: file.replaceAll(',', ',,'),
        allowOther: line.has('allowOther'),
        workers,
        processors,
        onProblem: (why) => {
          session.complain(`${session.name}: ${why}\n`);
        },
      });
      const endDisplay = displayStats(session, [{ image, given }], line.has('stats'));
      try {
        await session.print(`Mounted at ${file}\n`);
        await session.flush();
        await Promise.race([server.left, server.failed, interrupted(session)]);
      } finally {
        await server.close();
      }
      await endDisplay();
    } finally {
      await opened.close();
    }
    return 0;
  },
};
