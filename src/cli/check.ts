/** `cowherd check`: whether an image's metadata is consistent. */
import { CowherdError } from '../errors.js';
import type { CheckResult } from '../image/api.js';
import { CliError, usageError } from './cli-error.js';
import type { Command } from './command.js';
import { toFixedEven } from './decimal.js';
import { parseImageName } from './image-name.js';
import { openNamed } from './open.js';
import type { OptionSpecs } from './options.js';
import { parseCommandLine } from './options.js';
import { formatQemuJson } from './qemu-json.js';
import * as shared from './shared-options.js';

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
    help: 'not supported yet; qemu-img check -r repairs',
  },
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
    const repair = line.last('repair');
    if (repair !== undefined) refuseRepair(repair);
    if (line.operands.length !== 1) throw usageError('check', 'Expecting one image file name');
    shared.refuseObjects(line.all('object'));
    const cache = shared.parseSourceCache(line.last('cache'));
    const [given] = line.operands;
    const name = parseImageName(given, {
      format: line.last('format'),
      imageOpts: line.has('imageOpts'),
    });
    await using image = await openNamed(name, {
      readOnly: true,
      cache,
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: shared.parseAio(line.last('aio')),
    });
    let result: CheckResult;
    try {
      result = await image.check({ signal: session.signal });
    } catch (error) {
      if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_UNSUPPORTED') throw error;
      throw new CliError('This image format does not support checks', {
        exitCode: exitCodes.unsupported,
        cause: error,
      });
    }
    session.complain(result.findings.map(({ message }) => `${message}\n`).join(''));
    if (json) await session.print(`${checkJson({ ...result, filename: given })}\n`);
    else if (!line.has('quiet')) await session.print(checkText(result));
    if (result.checkErrors > 0) session.complain('cowherd: Check failed\n');
    return exitCode(result);
  },
};

function refuseRepair(what: string): never {
  if (what !== 'leaks' && what !== 'all') {
    throw usageError('check', `--repair (-r) expects 'leaks' or 'all' not '${what}'`);
  }
  throw new CliError('Repairing images is not supported yet');
}

function exitCode({ checkErrors, corruptions, leaks }: CheckResult): number {
  if (checkErrors > 0) return exitCodes.failed;
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
    'check-errors': result.checkErrors,
    leaks: some(result.leaks),
    'allocated-clusters': some(result.allocatedClusters),
    filename: result.filename,
    format: result.format,
    'fragmented-clusters': some(result.fragmentedClusters),
  });
}
