/** Options that several commands share, and the reading of their arguments. */
import type { AioMode, CacheMode } from '../../image/api/options.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { OptionSpec } from './options.js';

/** `--help`, which every command has. */
export const helpOption = {
  help: { short: 'h', long: 'help', help: 'show this help and exit' },
} as const satisfies Record<string, OptionSpec>;

/** `-f`, the format of the image a command reads. */
export const formatOption = {
  format: {
    short: 'f',
    long: 'format',
    argument: 'FORMAT',
    help: 'format of the image, such as raw or qcow2; left out, it is probed',
  },
} as const satisfies Record<string, OptionSpec>;

/** `--untrusted`, for images that may be anybody's. */
export const untrustedOption = {
  untrusted: {
    long: 'untrusted',
    help: "the image may be anybody's: open no other file it names, refuse it if one is needed",
  },
} as const satisfies Record<string, OptionSpec>;

/** Options of commands that open an image only to read it. */
export const readerOptions = {
  ...untrustedOption,
  imageOpts: {
    long: 'image-opts',
    help: 'the image is named by a list such as driver=qcow2,file.filename=NAME',
  },
  forceShare: {
    short: 'U',
    long: 'force-share',
    help: 'read even while another process writes to the image',
  },
  object: {
    long: 'object',
    argument: 'DEFINITION',
    help: 'a secret, as secret,id=ID,data=TEXT or file=NAME, or credentials of TLS, as tls-creds-x509,id=ID,dir=FOLDER,endpoint=client or tls-creds-psk,...',
  },
  aio: { long: 'aio', argument: 'ENGINE', help: 'I/O engine: io_uring, threads or auto' },
} as const satisfies Record<string, OptionSpec>;

/** Options of commands that change an image: how it is named, and opened. */
export const writerOptions = {
  imageOpts: readerOptions.imageOpts,
  object: readerOptions.object,
  aio: readerOptions.aio,
} as const satisfies Record<string, OptionSpec>;

/** `--output`, text for people or for programs. */
export const outputOption = {
  output: { long: 'output', argument: 'human|json', help: 'how to print the result' },
} as const satisfies Record<string, OptionSpec>;

/** `--queues`, how many queues work on an image. */
export const queuesOption = {
  queues: { long: 'queues', argument: 'N', help: 'queues that work on each image' },
} as const satisfies Record<string, OptionSpec>;

/** `--stats`, what the queues did. */
export const statsOption = {
  stats: { long: 'stats', help: 'print at the end what each queue did' },
} as const satisfies Record<string, OptionSpec>;

/** The number of queues. */
export function parseQueues(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const queues = Number(text);
  if (/^\d+$/.test(text) && queues >= 1 && queues <= 64) return queues;
  throw new CliError(`Invalid number of queues specified: '${text}'. Must be between 1 and 64.`);
}

/** `-q`, no output but errors. */
export const quietOption = {
  quiet: { short: 'q', long: 'quiet', help: 'print errors only' },
} as const satisfies Record<string, OptionSpec>;

/** `-p`, with an argument of our own for programs. */
export const progressOption = {
  progress: {
    short: 'p',
    long: 'progress',
    argument: 'fd:N',
    optional: true,
    help: 'show progress; with fd:N, as lines of JSON to file descriptor N',
  },
} as const satisfies Record<string, OptionSpec>;

/** Whether the result is wanted as JSON. */
export function wantsJson(command: string, output: string | undefined): boolean {
  if (output === undefined || output === 'human') return false;
  if (output === 'json') return true;
  throw usageError(command, `--output expects 'human' or 'json' not '${output}'`);
}

const cacheModes: readonly string[] = [
  'writeback',
  'none',
  'writethrough',
  'directsync',
  'unsafe',
] satisfies CacheMode[];

/** The cache mode of that name (`off` is `none`), or undefined for a name that is none. */
export function parseCacheMode(name: string): CacheMode | undefined {
  if (name === 'off') return 'none';
  return cacheModes.includes(name) ? (name as CacheMode) : undefined;
}

/**
 * The cache mode for reading a source.
 *
 * @throws CliError for a name that is no cache mode
 */
export function parseSourceCache(name: string | undefined, exitCode = 1): CacheMode | undefined {
  if (name === undefined) return undefined;
  const mode = parseCacheMode(name);
  if (mode === undefined) throw new CliError(`Invalid source cache option: ${name}`, { exitCode });
  return mode;
}

/** The I/O engine of that name. */
export function parseAio(name: string | undefined): AioMode | undefined {
  if (name === undefined || name === 'auto' || name === 'io_uring' || name === 'threads') {
    return name;
  }
  throw new CliError(`Invalid aio option: ${name}`);
}
