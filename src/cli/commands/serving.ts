/** What commands share that serve images until a signal ends them. */
import { setTimeout } from 'node:timers/promises';
import { CowherdError } from '../../errors.js';
import { mostWorkers } from '../../export/serve.js';
import type { Image } from '../../image/api/image.js';
import type { OpenImageOptions } from '../../image/api/options.js';
import { type ImageName, parseImageName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs, ParsedCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { CliError } from '../process/cli-error.js';
import { Interrupted, type Session } from '../process/session.js';
import { openNamed, tellingFindings } from './open.js';
import { type TemporaryOverlay, openOverlay } from './temporary-overlay.js';

/** Milliseconds for which an image is tried that somebody else has. */
const lockedMs = 1000;

/** Options of how images are opened, and by how many threads they are served. */
export const servingOptions = {
  ...shared.helpOption,
  ...shared.formatOption,
  imageOpts: shared.readerOptions.imageOpts,
  forceShare: shared.readerOptions.forceShare,
  object: shared.readerOptions.object,
  ...shared.untrustedOption,
  readOnly: { short: 'r', long: 'read-only', help: 'refuse what would change the images' },
  snapshot: {
    short: 's',
    long: 'snapshot',
    help: 'keep what is written in a temporary file that is gone at the end, and only read the images',
  },
  cache: { long: 'cache', argument: 'MODE', help: 'cache mode of the images' },
  aio: shared.readerOptions.aio,
  detectZeroes: {
    long: 'detect-zeroes',
    argument: 'off|on|unmap',
    help: 'look for zeroes in what is written',
  },
  discard: {
    long: 'discard',
    argument: 'ignore|unmap',
    help: 'whether clusters are freed that clients discard; default unmap',
  },
  workers: {
    long: 'workers',
    argument: 'N',
    help: 'threads that serve; default one for each processor, 8 at most',
  },
  cpus: {
    long: 'cpus',
    argument: 'LIST',
    help: 'processors that the threads run on, one each, such as 0-2,5; default wherever there is time',
  },
  stats: {
    long: 'stats',
    help: 'show what each queue does: once a second at a terminal, and at the end; SIGUSR1 asks for JSON',
  },
} as const satisfies OptionSpecs<string>;

type Line = Pick<ParsedCommandLine<keyof typeof servingOptions>, 'all' | 'has' | 'last'>;

/** Images that a command serves. */
export class ServedImages {
  readonly images: Image[] = [];
  readonly #overlays: TemporaryOverlay[] = [];

  /** Opens one more as the options say. @throws CliError, CowherdError */
  async open(given: string, line: Line, session: Session): Promise<Image> {
    const { name, opening } = openingOfName(given, line, session);
    const image = await openOnceFree(async () => {
      if (!line.has('snapshot')) return await openNamed(name, opening);
      const overlay = await openOverlay(name, opening);
      this.#overlays.push(overlay);
      return overlay.image;
    }, session);
    this.images.push(image);
    return image;
  }

  /** Closes all of them. */
  async close(): Promise<void> {
    for (const image of this.images) await image.close();
    for (const overlay of this.#overlays) await overlay.close();
  }
}

function openingOfName(
  given: string,
  line: Line,
  session: Session,
): { readonly name: ImageName; readonly opening: OpenImageOptions } {
  const opening = openingOf(line, session);
  const name = parseImageName(given, {
    format: line.last('format'),
    objects: readObjects(line.all('object')),
    imageOpts: line.has('imageOpts'),
    forWriting: opening.readOnly !== true && !line.has('snapshot'),
  });
  return { name, opening };
}

/** How many threads serve. @throws CliError */
export function workersOf(line: Line): number | undefined {
  return count(line.last('workers'), 'number of workers', 1, mostWorkers);
}

/**
 * Opens an image. A server that was killed may hold it for a moment yet, until the kernel has ended what it
 * had under way.
 */
async function openOnceFree(open: () => Promise<Image>, { signal }: Session): Promise<Image> {
  const last = performance.now() + lockedMs;
  for (;;) {
    try {
      return await open();
    } catch (error) {
      const isLocked = error instanceof CowherdError && error.code === 'ERR_COWHERD_LOCKED';
      if (!isLocked || performance.now() > last || signal.aborted) throw error;
    }
    await setTimeout(lockedMs / 20);
  }
}

function openingOf(line: Line, session: Session): OpenImageOptions {
  const cache = line.last('cache');
  const mode = cache === undefined ? undefined : shared.parseCacheMode(cache);
  if (cache !== undefined && mode === undefined) {
    throw new CliError(`Invalid cache mode \`${cache}'`);
  }
  const detectZeroes = line.last('detectZeroes');
  if (
    detectZeroes !== undefined &&
    detectZeroes !== 'off' &&
    detectZeroes !== 'on' &&
    detectZeroes !== 'unmap'
  ) {
    throw new CliError(`Invalid detect-zeroes mode '${detectZeroes}'`);
  }
  const discard = line.last('discard');
  const isKnown = discard === undefined || /^(ignore|off|unmap|on)$/.test(discard);
  if (!isKnown) throw new CliError(`Invalid discard mode '${discard}'`);
  return {
    discard: discard === 'ignore' || discard === 'off' ? 'ignore' : undefined,
    readOnly: line.has('readOnly'),
    forceShare: line.has('forceShare') && line.has('readOnly'),
    untrusted: line.has('untrusted'),
    cache: mode,
    aio: shared.parseAio(line.last('aio')),
    detectZeroes,
    ...tellingFindings(session),
  };
}

/** Which processors the threads run on. @throws CliError */
export function processorsOf(line: Line): readonly number[] | undefined {
  const list = line.last('cpus');
  if (list === undefined) return undefined;
  return list.split(',').flatMap((part) => {
    const match: readonly (string | undefined)[] | null = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? first);
    if (match === null || last < first) throw new CliError(`Invalid list of processors '${list}'`);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/** A whole number of an option, within bounds. @throws CliError */
export function count(
  text: string | undefined,
  what: string,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d{1,9}$/.test(text) && value >= least && value <= most) return value;
  throw new CliError(`Invalid ${what} specified: '${text}'. Must be between ${least} and ${most}.`);
}

/** Resolves when a signal asks for the end, which is how a server ends; rejects when output is gone. */
export function interrupted({ signal }: Session): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      if (signal.reason instanceof Interrupted) resolve();
      else reject(signal.reason as Error);
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}
