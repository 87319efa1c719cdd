/** The options of `cowherd convert` and what their arguments may be. */
import type { CacheMode, OpenImageOptions } from '../../image/api/options.js';
import { parseSize } from '../../size.js';
import { CliError } from '../process/cli-error.js';
import { parseOptionList } from './option-list.js';
import type { OptionSpecs } from './options.js';
import * as shared from './shared-options.js';

/** The options. */
export const convertOptions = {
  ...shared.helpOption,
  ...shared.quietOption,
  ...shared.progressOption,
  format: {
    short: 'f',
    long: 'source-format',
    argument: 'FORMAT',
    help: 'format of the sources, such as raw or qcow2; left out, it is probed',
  },
  imageOpts: {
    long: 'image-opts',
    help: 'sources are named by lists such as driver=qcow2,file.filename=NAME',
  },
  sourceImageOpts: { long: 'source-image-opts', help: 'the same as --image-opts' },
  snapshot: {
    short: 'l',
    long: 'snapshot',
    aliases: ['source-snapshot'],
    argument: 'SNAPSHOT',
    help: 'convert this internal snapshot, by id or name, or as snapshot.id=ID',
  },
  sourceCache: {
    short: 'T',
    long: 'source-cache',
    argument: 'MODE',
    help: 'cache mode of sources',
  },
  targetFormat: {
    short: 'O',
    long: 'output-format',
    aliases: ['target-format'],
    argument: 'FORMAT',
    help: 'format of the target; default raw',
  },
  targetImageOpts: {
    long: 'target-image-opts',
    help: 'the target is named by a list; requires -n',
  },
  options: {
    short: 'o',
    long: 'options',
    aliases: ['target-options'],
    argument: 'LIST',
    help: 'options of the new image as name=value,name=value; `-o help` lists them',
  },
  compress: {
    short: 'c',
    long: 'compress',
    help: 'store clusters compressed (qcow2, streamOptimized vmdk)',
  },
  targetCache: {
    short: 't',
    long: 'output-cache',
    aliases: ['target-cache'],
    argument: 'MODE',
    help: 'cache mode of the target',
  },
  backing: {
    short: 'B',
    long: 'backing',
    argument: 'NAME',
    help: 'the image below the target, whose content is not copied',
  },
  backingFormat: { short: 'F', long: 'backing-format', argument: 'FORMAT', help: 'its format' },
  skipCreate: { short: 'n', long: 'no-create', help: 'the target exists and is written into' },
  targetIsZero: { long: 'target-is-zero', help: 'the existing target reads as zeroes' },
  sparseSize: {
    short: 'S',
    long: 'sparse-size',
    argument: 'SIZE',
    help: 'so many zero bytes in a row are not written; 0 writes all',
  },
  bitmaps: { long: 'bitmaps', help: "copy the source's persistent bitmaps too" },
  skipBrokenBitmaps: {
    long: 'skip-broken-bitmaps',
    help: 'leave out bitmaps that were in use when the source was closed',
  },
  forceShare: {
    short: 'U',
    long: 'force-share',
    help: 'read even while another process writes to the sources',
  },
  rateLimit: { short: 'r', long: 'rate', argument: 'RATE', help: 'bytes a second at most' },
  parallel: {
    short: 'm',
    long: 'parallel',
    argument: 'N',
    help: 'pieces under way at once, 1 to 16',
  },
  copyRange: {
    short: 'C',
    long: 'copy-range-offloading',
    help: 'let the host copy by itself what goes to a raw target, where it can',
  },
  checksum: {
    long: 'checksum',
    argument: 'DIGEST',
    help: 'print a digest (sha256, …) of the sources’ files and disks, or check it: sha256:HEX',
  },
  salvage: { long: 'salvage', help: 'what cannot be read becomes zeroes, with a warning' },
  outOfOrder: { short: 'W', long: 'oob-writes', help: 'let the target hold the disk in any order' },
  object: {
    long: 'object',
    argument: 'DEFINITION',
    help: 'a secret or TLS credentials: TYPE,id=ID,NAME=VALUE',
  },
  ...shared.untrustedOption,
  ...shared.queuesOption,
  ...shared.statsOption,
  aio: { long: 'aio', argument: 'ENGINE', help: 'I/O engine: io_uring, threads or auto' },
} as const satisfies OptionSpecs<string>;

/** The number of pieces under way at once. */
export function parseParallel(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\s*[+-]?\d+$/.test(text)) {
    throw new CliError(`Invalid number of coroutines specified: '${text}'.`);
  }
  const parallel = Number(text);
  if (parallel >= 1 && parallel <= 16) return parallel;
  throw new CliError('Invalid number of coroutines specified. Must be between 1 and 16.');
}

const largestSparseSize = 16 * 1024 * 1024;

/** The number of zero bytes in a row that are not written. */
export function parseSparseSize(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === 'invalid') {
    throw new CliError(`Invalid buffer size for sparse output specified: '${text}'.`);
  }
  if (size === 'out-of-range' || size % 512n !== 0n || size > largestSparseSize) {
    throw new CliError(
      'Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to ' +
        `${largestSparseSize}. Select 0 to disable sparse detection (fully allocates output).`,
    );
  }
  return Number(size);
}

/** Bytes a second. */
export function parseRateLimit(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const rate = parseSize(text);
  // None is no limit.
  if (typeof rate === 'bigint') return rate === 0n ? undefined : Number(rate);
  if (rate === 'invalid') throw new CliError(`Invalid rate limit specified: '${text}'.`);
  throw new CliError('Invalid rate limit specified. Must be between 0 and 9223372036854775807.');
}

/** The cache mode of the target. */
export function parseTargetCache(name: string | undefined): CacheMode | undefined {
  if (name === undefined) return undefined;
  const mode = shared.parseCacheMode(name);
  if (mode === undefined) throw new CliError(`Invalid cache option: ${name}`);
  return mode;
}

/** Which snapshot, from either of the forms it can be given in. */
export function parseSnapshot(text: string | undefined): OpenImageOptions['snapshot'] {
  if (text?.startsWith('snapshot.') !== true) return text;
  let chosen: { id?: string; name?: string } = {};
  for (const { name, value } of parseOptionList(text)) {
    if (name === 'snapshot.id') chosen = { ...chosen, id: value };
    else if (name === 'snapshot.name') chosen = { ...chosen, name: value };
    else {
      throw new CliError(`Failed in parsing snapshot param '${text}'`, {
        before: `Invalid parameter '${name}'`,
      });
    }
  }
  return chosen;
}
