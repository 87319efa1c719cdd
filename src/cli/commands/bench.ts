/** `cowherd bench`: how many requests a second an image takes. */
import { CowherdError } from '../../errors.js';
import type { CacheMode } from '../../image/api/options.js';
import { type BenchOptions, type BenchResult, bench } from '../../jobs/bench.js';
import { parseSize } from '../../size.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import { parseImageName } from '../options/image-name.js';
import { openNamed, tellingFindings } from './open.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs, ParsedCommandLine } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import { type JsonValue, formatQemuJson } from '../text/qemu-json.js';
import * as shared from '../options/shared-options.js';
import { statsTable } from '../text/stats-table.js';

const options = {
  ...shared.helpOption,
  quiet: { ...shared.quietOption.quiet, help: 'print no more than qemu-img does' },
  ...shared.formatOption,
  imageOpts: shared.readerOptions.imageOpts,
  forceShare: shared.readerOptions.forceShare,
  object: shared.readerOptions.object,
  ...shared.untrustedOption,
  cache: { short: 't', long: 'cache', argument: 'MODE', help: 'cache mode of the image' },
  count: { short: 'c', long: 'count', argument: 'N', help: 'requests to make; default 75000' },
  depth: {
    short: 'd',
    long: 'depth',
    argument: 'N',
    help: 'requests under way at a time on each queue; default 64',
  },
  offset: { short: 'o', long: 'offset', argument: 'BYTES', help: 'where the first request goes' },
  bufferSize: {
    short: 's',
    long: 'buffer-size',
    argument: 'BYTES',
    help: 'size of a request; default 4096',
  },
  stepSize: {
    short: 'S',
    long: 'step-size',
    argument: 'BYTES',
    help: 'from one request to the next; default the size of a request',
  },
  aio: {
    short: 'i',
    long: 'aio',
    argument: 'ENGINE',
    help: 'I/O engine: io_uring, threads, auto, or native, which is auto with -t none',
  },
  native: { short: 'n', long: 'native', help: 'the same as --aio native' },
  write: { short: 'w', long: 'write', help: 'write instead of reading' },
  pattern: {
    long: 'pattern',
    argument: 'BYTE|seq|rand',
    help: 'the byte to write, or whether requests follow each other or go to random places',
  },
  flushInterval: {
    long: 'flush-interval',
    argument: 'N',
    help: 'flush after every so many writes',
  },
  noDrain: { long: 'no-drain', help: 'do not wait for the writes before a flush' },
  readPercent: {
    long: 'read-percent',
    argument: 'N',
    help: 'mix reads and writes: so many per cent read',
  },
  ...shared.queuesOption,
  ...shared.statsOption,
  ...shared.outputOption,
} as const satisfies OptionSpecs<string>;

type Line = ParsedCommandLine<keyof typeof options>;

const mostCount = 0x7fffffff;

/** The command. */
export const benchCommand: Command = {
  name: 'bench',
  summary: 'Measure how many requests a second an image takes',
  operands: 'IMAGE',
  options,
  async run(words, session) {
    const line = parseCommandLine('bench', options, words);
    const json = shared.wantsJson('bench', line.last('output'));
    const wanted = parseLoad(line);
    if (line.operands.length !== 1) throw usageError('bench', 'Expecting one image file name');
    const objects = readObjects(line.all('object'));
    const cache = line.last('cache');
    const mode = cache === undefined ? undefined : shared.parseCacheMode(cache);
    if (cache !== undefined && mode === undefined) throw new CliError('Invalid cache mode');
    const name = parseImageName(line.operands[0], {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
    });
    const isNative = line.has('native') || line.last('aio') === 'native';
    if (isNative) refuseWithoutDirect(mode, line.operands[0]);
    await using image = await openNamed(name, {
      signal: session.signal,
      readOnly: wanted.readPercent === 100,
      cache: mode,
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: isNative ? 'auto' : shared.parseAio(line.last('aio')),
      ...tellingFindings(session),
    });
    if (!json) await session.print(announcement(wanted));
    let result: BenchResult;
    try {
      result = await bench(image, { ...wanted, signal: session.signal });
    } catch (error) {
      if (session.signal.aborted || !(error instanceof CowherdError)) throw error;
      throw new CliError(`Failed request: ${error.message}`, { cause: error });
    }
    if (json) await session.print(`${formatQemuJson(benchJson(result))}\n`);
    else await session.print(benchText(result, line.has('quiet')));
    if (!json && line.has('stats')) {
      await session.print(statsTable(`Queues of '${name.given}':`, result.stats));
    }
    return 0;
  },
};

type Load = BenchOptions & { readonly readPercent: number; readonly stepBytes: number };

function parseLoad(line: Line): Load {
  const integer = (key: keyof typeof options, what: string, least: number): number | undefined =>
    parseInteger(line.last(key), what, least, mostCount);
  const count = integer('count', 'request count', 1) ?? 75_000;
  const depth = integer('depth', 'queue depth', 1) ?? 64;
  const offset = parseBytes(line.last('offset'), 'offset', 0, Number.MAX_SAFE_INTEGER) ?? 0;
  const bufferBytes = parseBytes(line.last('bufferSize'), 'buffer size', 1, mostCount) ?? 4096;
  const step = parseBytes(line.last('stepSize'), 'step size', 0, mostCount) ?? 0;
  const pattern = line.last('pattern');
  const access = pattern === 'seq' || pattern === 'rand' ? pattern : undefined;
  const fill = access === undefined ? (parseInteger(pattern, 'pattern byte', 0, 255) ?? 0) : 0xa5;
  const flushInterval = integer('flushInterval', 'flush interval', 0) ?? 0;
  const mixed = parseInteger(line.last('readPercent'), 'percentage of reads', 0, 100);
  const readPercent = mixed ?? (line.has('write') ? 0 : 100);
  if (flushInterval > 0 && readPercent === 100) {
    throw new CliError('--flush-interval is only available in write tests');
  }
  if (flushInterval > 0 && flushInterval < depth) {
    throw new CliError("Flush interval can't be smaller than depth");
  }
  return {
    count,
    depth,
    offset,
    bufferBytes,
    stepBytes: step === 0 ? bufferBytes : step,
    access,
    fill,
    flushInterval,
    drain: !line.has('noDrain'),
    readPercent,
    queues: shared.parseQueues(line.last('queues')),
  };
}

function parseInteger(
  text: string | undefined,
  what: string,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[+-]?\d+$/.test(text)) throw new CliError(`Invalid ${what} specified: '${text}'.`);
  const value = Number(text);
  if (value >= least && value <= most) return value;
  throw new CliError(`Invalid ${what} specified. Must be between ${least} and ${most}.`);
}

function parseBytes(
  text: string | undefined,
  what: string,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === 'invalid') throw new CliError(`Invalid ${what} specified: '${text}'.`);
  const value = typeof size === 'bigint' ? Number(size) : -1;
  if (value >= least && value <= most) return value;
  // QEMU counts offsets up to 2^63 - 1; beyond 2^53 - 1 no disk is opened here.
  const named = most === Number.MAX_SAFE_INTEGER ? '9223372036854775807' : String(most);
  throw new CliError(`Invalid ${what} specified. Must be between ${least} and ${named}.`);
}

function announcement(load: Load): string {
  const { count, depth, bufferBytes, offset = 0, stepBytes, readPercent, queues = 1 } = load;
  const kinds: Readonly<Record<number, string>> = { 0: 'write', 100: 'read' };
  const kind = kinds[readPercent] ?? `${readPercent}% read`;
  const order =
    load.access === 'rand'
      ? 'at random places'
      : `starting at offset ${offset}, step size ${stepBytes}`;
  let text = `Sending ${count} ${kind} requests, ${bufferBytes} bytes each, ${depth} in parallel`;
  text += `${queues > 1 ? ` on each of ${queues} queues` : ''} (${order})\n`;
  const { flushInterval = 0 } = load;
  if (flushInterval > 0) {
    text += `Sending flush every ${flushInterval} requests\n`;
  }
  return text;
}

function benchText(result: BenchResult, quiet: boolean): string {
  const { seconds, requestsPerSecond, bytesPerSecond, latency } = result;
  const completed = `Run completed in ${seconds.toFixed(3)} seconds.\n`;
  if (quiet) return completed;
  const rate = `${Math.round(requestsPerSecond)} requests/s, ${(bytesPerSecond / 1024 ** 2).toFixed(1)} MiB/s`;
  const { p50, p90, p99, p999, max } = latency;
  return (
    completed +
    `${rate}; latency in us: p50 ${p50}, p90 ${p90}, p99 ${p99}, p99.9 ${p999}, max ${max}\n`
  );
}

function benchJson(result: BenchResult): JsonValue {
  const { latency, stats } = result;
  return {
    requests: result.requests,
    seconds: result.seconds,
    'requests-per-second': result.requestsPerSecond,
    'bytes-per-second': result.bytesPerSecond,
    'latency-us': {
      p50: latency.p50,
      p90: latency.p90,
      p99: latency.p99,
      'p99.9': latency.p999,
      max: latency.max,
    },
    queues: stats.queues.map(({ queue, requests, bytesRead, bytesWritten }) => ({
      queue,
      reads: requests.read,
      writes: requests.write,
      flushes: requests.flush,
      'bytes-read': bytesRead,
      'bytes-written': bytesWritten,
    })),
  };
}

/** What QEMU takes its native engine for is to go around the page cache. */
function refuseWithoutDirect(mode: CacheMode | undefined, filename: string): void {
  if (mode === 'none' || mode === 'directsync') return;
  throw new CliError(
    `Could not open '${filename}': aio=native was specified, but it requires cache.direct=on, which was not specified.`,
  );
}
