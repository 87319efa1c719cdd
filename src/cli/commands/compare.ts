/** `cowherd compare`: whether two images show the same content. */
import { CowherdError } from '../../errors.js';
import { BlockStatusError } from '../../jobs/block-status.js';
import type { CompareResult } from '../../jobs/compare.js';
import { compareImages } from '../../jobs/compare.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import { parseImageName } from '../options/image-name.js';
import { openNamed } from './open.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import type { NamedFile } from '../text/failures.js';
import { progressDisplay } from '../text/progress.js';
import * as shared from '../options/shared-options.js';
import { statsTable } from '../text/stats-table.js';

const options = {
  ...shared.helpOption,
  ...shared.quietOption,
  ...shared.progressOption,
  ...shared.readerOptions,
  formatA: { short: 'f', long: 'a-format', argument: 'FORMAT', help: 'format of the first image' },
  formatB: { short: 'F', long: 'b-format', argument: 'FORMAT', help: 'format of the second image' },
  strict: {
    short: 's',
    long: 'strict',
    help: 'sizes have to be equal too, and how every range is stored',
  },
  cache: { short: 'T', long: 'cache', argument: 'MODE', help: 'cache mode of both images' },
  ...shared.queuesOption,
  ...shared.statsOption,
} as const satisfies OptionSpecs<string>;

/** Exit codes: different, could not be opened, cannot be told how it is stored, could not be read. */
const exitCodes = { different: 1, open: 2, status: 3, read: 4 };

/** Differences are reported by the sector they lie in. */
const sectorSize = 512;

/** The command. */
export const compareCommand: Command = {
  name: 'compare',
  summary: 'Compare the content of two images',
  operands: 'IMAGE1 IMAGE2',
  options,
  async run(words, session) {
    const line = parseCommandLine('compare', options, words);
    if (line.operands.length !== 2) throw usageError('compare', 'Expecting two image file names');
    const objects = readObjects(line.all('object'), exitCodes.open);
    const imageOpts = line.has('imageOpts');
    const exitCode = exitCodes.open;
    const [first, second] = line.operands;
    const nameA = parseImageName(first, {
      format: line.last('formatA'),
      imageOpts,
      objects,
      exitCode,
    });
    const nameB = parseImageName(second, {
      format: line.last('formatB'),
      imageOpts,
      objects,
      exitCode,
    });
    const opening = {
      signal: session.signal,
      readOnly: true,
      cache: shared.parseSourceCache(line.last('cache'), exitCode),
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: shared.parseAio(line.last('aio')),
    };
    const quiet = line.has('quiet');
    const queues = shared.parseQueues(line.last('queues'));
    const progress = progressDisplay(session, {
      wanted: line.has('progress'),
      argument: line.last('progress'),
      quiet,
      stepPercent: 2,
    });
    let result: CompareResult | undefined;
    let commonSize = Infinity;
    try {
      await using imageA = await openNamed(nameA, opening, exitCode);
      await using imageB = await openNamed(nameB, opening, exitCode);
      if (imageA.size !== imageB.size) commonSize = Math.min(imageA.size, imageB.size);
      result = await compareImages(imageA, imageB, {
        strict: line.has('strict'),
        queues,
        signal: session.signal,
        onProgress: progress.update,
      });
      if (!quiet) await session.print(verdict(result));
      if (line.has('stats')) {
        await session.print(statsTable(`Queues of '${first}':`, imageA.stats()));
        await session.print(statsTable(`Queues of '${second}':`, imageB.stats()));
      }
    } catch (error) {
      if (session.signal.aborted || !(error instanceof CowherdError)) throw error;
      // What only the longer one has is looked at when all that both have is equal.
      const isBeyond = (error.offset ?? 0) >= commonSize;
      if (isBeyond && !quiet) await session.print(sizeWarning);
      throw failureOf(error, [nameA, nameB]);
    } finally {
      await progress.end();
    }
    return result.identical ? 0 : exitCodes.different;
  },
};

const sizeWarning = 'Warning: Image size mismatch!\n';

function failureOf(error: CowherdError, names: readonly NamedFile[]): CliError {
  const { message, filename, offset, reason = message } = error;
  if (error instanceof BlockStatusError) {
    const text = `Sector allocation test failed for ${filename ?? ''}`;
    return new CliError(text, { exitCode: exitCodes.status, cause: error });
  }
  const isKnown = filename !== undefined && offset !== undefined;
  const given = names.find(({ path }) => path === filename)?.given ?? filename ?? '';
  const text = isKnown ? `Error while reading offset ${offset} of ${given}: ${reason}` : message;
  return new CliError(text, { exitCode: exitCodes.read, cause: error });
}

function verdict({ difference, sizeA, sizeB }: CompareResult): string {
  if (difference?.kind === 'size') return 'Strict mode: Image size mismatch!\n';
  if (difference?.kind === 'status') {
    return `Strict mode: Offset ${difference.offset} block status mismatch!\n`;
  }
  // The sizes come up only when everything that both images have was found to be equal.
  const reachedEnd = difference === undefined || difference.offset >= Math.min(sizeA, sizeB);
  const warning = sizeA !== sizeB && reachedEnd ? sizeWarning : '';
  if (difference === undefined) return `${warning}Images are identical.\n`;
  const offset = difference.offset - (difference.offset % sectorSize);
  return `${warning}Content mismatch at offset ${offset}!\n`;
}
