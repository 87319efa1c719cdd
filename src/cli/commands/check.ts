/** `cowherd check`: whether an image's metadata is consistent. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import type { CheckFinding, CheckOptions, CheckResult } from '../../image/api/reports.js';
import { CliError, adviceOf, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import { toFixedEven } from '../text/decimal.js';
import { parseImageName } from '../options/image-name.js';
import { openNamed } from './open.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import { formatQemuJson } from '../text/qemu-json.js';
import * as shared from '../options/shared-options.js';

const options = {
  ...shared.helpOption,
  ...shared.quietOption,
  ...shared.formatOption,
  ...shared.readerOptions,
  ...shared.outputOption,
  cache: { short: 'T', long: 'cache', argument: 'MODE', help: 'cache mode of the image' },
  repair: {
    short: 'r',
    long: 'repair',
    argument: 'leaks|all',
    help: 'put right what was found: leaked clusters only, or all that can be',
  },
  ...shared.queuesOption,
  explain: { long: 'explain', help: 'say after each finding what it means for your data' },
} as const satisfies OptionSpecs<string>;

/** Exit codes: the check itself failed, damage, leaks only, a format without checks. */
const exitCodes = { failed: 1, corruptions: 2, leaks: 3, unsupported: 63 };

/** The command. */
export const checkCommand: Command = {
  name: 'check',
  summary: 'Check the consistency of an image',
  operands: 'IMAGE',
  options,
  async run(words, session) {
    const line = parseCommandLine('check', options, words);
    const json = shared.wantsJson('check', line.last('output'));
    const repair = parseRepair(line.last('repair'));
    if (line.operands.length !== 1) throw usageError('check', 'Expecting one image file name');
    const objects = readObjects(line.all('object'));
    const queues = shared.parseQueues(line.last('queues'));
    const cache = shared.parseSourceCache(line.last('cache'));
    const [given] = line.operands;
    const name = parseImageName(given, {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
    });
    await using image = await openNamed(name, {
      signal: session.signal,
      readOnly: repair === undefined,
      forCheck: true,
      cache,
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: shared.parseAio(line.last('aio')),
    });
    const explain = line.has('explain');
    const check = (options: CheckOptions): Promise<CheckResult> =>
      checkImage(image, {
        ...options,
        queues,
        signal: session.signal,
        onFinding: (finding) => {
          session.complain(findingText(finding, explain, session.name));
        },
      });
    let result = await check({ repair });
    const { corruptionsFixed, leaksFixed } = result;
    if (corruptionsFixed > 0 || leaksFixed > 0) {
      if (!json && !line.has('quiet')) await session.print(repairedText(result));
      result = { ...(await check({})), corruptionsFixed, leaksFixed };
    }
    if (result.failure === undefined) {
      if (json) await session.print(`${checkJson({ ...result, filename: given })}\n`);
      else if (!line.has('quiet')) await session.print(checkText(result));
    }
    if (result.failure !== undefined) {
      session.complain(`${session.name}: Check failed: ${failureTexts[result.failure]}\n`);
    } else if (result.checkErrors > 0) {
      session.complain(`${session.name}: Check failed\n`);
    }
    return exitCode(result);
  },
};

const failureTexts = {
  EIO: 'Input/output error',
  EINVAL: 'Invalid argument',
  EFBIG: 'File too large',
};

async function checkImage(image: Image, options: CheckOptions): Promise<CheckResult> {
  try {
    return await image.check(options);
  } catch (error) {
    if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_UNSUPPORTED') throw error;
    throw new CliError(error.message, {
      exitCode: exitCodes.unsupported,
      cause: error,
    });
  }
}

function findingText(finding: CheckFinding, explain: boolean, program: string): string {
  const { kind, topic, message, explanation } = finding;
  // Of a table that cannot be read at all the program speaks itself.
  const speaker = kind === 'error' && topic.startsWith('snapshot') ? `${program}: ` : '';
  return `${speaker}${adviceOf(message, program)}\n${explain ? `  ${explanation}\n` : ''}`;
}

function parseRepair(what: string | undefined): 'leaks' | 'all' | undefined {
  if (what === undefined || what === 'leaks' || what === 'all') return what;
  throw usageError('check', `--repair (-r) expects 'leaks' or 'all' not '${what}'`);
}

/** What a repair has done, as text for people. */
function repairedText({ corruptionsFixed, leaksFixed }: CheckResult): string {
  return [
    'The following inconsistencies were found and repaired:',
    '',
    `    ${leaksFixed} leaked clusters`,
    `    ${corruptionsFixed} corruptions`,
    '',
    'Double checking the fixed image now...',
    '',
  ].join('\n');
}

function exitCode({ checkErrors, corruptions, leaks, failure }: CheckResult): number {
  if (checkErrors > 0 || failure !== undefined) return exitCodes.failed;
  if (corruptions > 0) return exitCodes.corruptions;
  return leaks > 0 ? exitCodes.leaks : 0;
}

/** The result as text for people. */
export function checkText(result: CheckResult): string {
  const { checkErrors, corruptions, leaks, totalClusters, allocatedClusters } = result;
  let text = '';
  if (checkErrors === 0 && corruptions === 0 && leaks === 0) {
    text += 'No errors were found on the image.\n';
  }
  if (corruptions > 0) {
    text += `\n${corruptions} errors were found on the image.\n`;
    text += 'Data may be corrupted, or further writes to the image may corrupt it.\n';
  }
  if (leaks > 0) {
    text += `\n${leaks} leaked clusters were found on the image.\n`;
    text += 'This means waste of disk space, but no harm to data.\n';
  }
  if (checkErrors > 0) {
    text += `\n${checkErrors} internal errors have occurred during the check.\n`;
  }
  if (totalClusters > 0 && allocatedClusters > 0) {
    const allocated = percent(allocatedClusters, totalClusters);
    const fragmented = percent(result.fragmentedClusters, allocatedClusters);
    const compressed = percent(result.compressedClusters, allocatedClusters);
    text += `${allocatedClusters}/${totalClusters} = ${allocated} allocated, `;
    text += `${fragmented} fragmented, ${compressed} compressed clusters\n`;
  }
  if (result.imageEndOffset > 0) text += `Image end offset: ${result.imageEndOffset}\n`;
  return text;
}

function percent(part: number, whole: number): string {
  return `${toFixedEven((part / whole) * 100, 2)}%`;
}

/** The result as JSON, keys in QEMU's order and counts of nothing left out. */
export function checkJson(result: CheckResult): string {
  const some = (count: number): number | undefined => (count === 0 ? undefined : count);
  return formatQemuJson({
    'image-end-offset': some(result.imageEndOffset),
    'compressed-clusters': some(result.compressedClusters),
    'total-clusters': some(result.totalClusters),
    corruptions: some(result.corruptions),
    'corruptions-fixed': some(result.corruptionsFixed),
    'check-errors': result.checkErrors,
    leaks: some(result.leaks),
    'leaks-fixed': some(result.leaksFixed),
    'allocated-clusters': some(result.allocatedClusters),
    filename: result.filename,
    format: result.format,
    'fragmented-clusters': some(result.fragmentedClusters),
  });
}
