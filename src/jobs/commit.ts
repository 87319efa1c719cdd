/** Committing an image: what it holds is written into one that it stands on. */
import { realpath } from 'node:fs/promises';
import { hostPath } from '../byte-names.js';
import { CowherdError, problemWith } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import type { OpenImageOptions } from '../image/api/options.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import { isImage } from '../image/graph/is-image.js';
import { emptyImage, extentsOfLayers, workAboveBase } from '../image/graph/layers.js';
import { type IsWritten, openWithBase } from '../image/graph/open.js';
import { resolveReference } from '../image/names/reference.js';
import {
  type OptionRules,
  abortSignal,
  anyText,
  callback,
  checkOptions,
  flag,
  options as optionsBy,
  positive,
} from '../image/options/option-check.js';
import { openImageRules } from '../image/options/open-options.js';
import type { Source } from './concatenation.js';
import { Copier } from './copier.js';
import type { SourceExtent } from './host-holes.js';

/** Bytes that are committed as a whole if any of them is: those of a cluster within these bounds. */
const leastGranule = 4096;
const mostGranule = 65_536;

/** What is committed, and where. */
export interface CommitOptions extends LongOperationOptions {
  /**
   * The image of the chain that is written to, relative to the folder of the one that stands on it; default
   * the one right below. What lies between is committed too, and makes no sense afterwards.
   */
  readonly base?: string | undefined;
  /** Whether the image itself is emptied at the end; default unless `base` is said. */
  readonly empty?: boolean | undefined;
  /** Bytes a second. */
  readonly rateLimit?: number | undefined;
  /** How the image is opened; of no use for one that is open. */
  readonly image?: OpenImageOptions | undefined;
}

const rules: OptionRules<CommitOptions> = {
  base: anyText,
  empty: flag,
  rateLimit: positive,
  image: optionsBy(openImageRules),
  signal: abortSignal,
  onProgress: callback,
};

/**
 * Writes what an image holds into the one below it, or one further down, which then shows the same disk; a
 * shorter one grows. After that the image is emptied, unless told otherwise. Whatever is cut off, the image
 * shows the same as before.
 *
 * An image that is open stays open, and no request of any of its queues runs meanwhile.
 *
 * @throws CowherdError ERR_COWHERD_BACKING for an image that stands on no other, or not on that one;
 *   ERR_COWHERD_UNSUPPORTED for a base that would have to grow and cannot, and for an open image that other threads
 *   may have open too; ERR_COWHERD_ABORTED, or what is wrong with which file
 */
export async function commit(given: PathLike | Image, options: CommitOptions = {}): Promise<void> {
  const path = isImage(given) ? given.filename : pathOf(given);
  checkOptions(options, rules, path);
  const { base, signal } = options;
  try {
    if (isImage(given)) {
      await workAboveBase(given, isBase(base), signal, (chain, empty) =>
        commitChain(chain, options, empty),
      );
    } else {
      const opening = { inOrder: true, ...options.image, signal, readOnly: false };
      await using image = await openWithBase(path, opening, isBase(base));
      await commitChain(image, options, () => emptyImage(image));
    }
  } catch (error) {
    if (signal?.aborted !== true) throw error;
    const message = `Committing '${path}' was cancelled`;
    throw new CowherdError('ERR_COWHERD_ABORTED', message, { filename: path, cause: error });
  }
}

async function commitChain(
  image: Image,
  options: CommitOptions,
  emptyIt: () => Promise<void>,
): Promise<void> {
  const { base, signal, empty = base === undefined } = options;
  const { target, depth } = baseOf(image, base);
  if (target.size < image.size) await target.resize(image.size, { signal });
  await copyDown(image, target, depth, options);
  await target.flush();
  signal?.throwIfAborted();
  if (empty) await emptied(image.filename, emptyIt);
}

/** So that nobody takes what is committed for lost. */
async function emptied(filename: string, emptyIt: () => Promise<void>): Promise<void> {
  try {
    await emptyIt();
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    const message = `Failed to empty '${filename}', which is committed: ${error.message}`;
    throw new CowherdError(error.code, message, { filename, operation: 'empty', cause: error });
  }
}

/** Tells the image that is written to: the first below, or that of a name. */
function isBase(name: string | undefined): IsWritten {
  if (name === undefined) return () => Promise.resolve(true);
  return async (above, path) => {
    const named = resolveReference(above, name);
    if (named === path) return true;
    const [wanted, found] = await Promise.all(
      [named, path].map((each) => realpath(hostPath(each)).catch(() => undefined)),
    );
    return wanted !== undefined && wanted === found;
  };
}

/** The image that was opened to be written to, and how many stand on it. */
function baseOf(image: Image, name: string | undefined): { target: Image; depth: number } {
  let depth = 0;
  for (let link = image.backing; link !== undefined; link = link.backing) {
    depth += 1;
    if (!link.readOnly) return { target: link, depth };
  }
  const { filename } = image;
  if (name === undefined) {
    throw problemWith('ERR_COWHERD_BACKING', filename, 'Image does not have a backing file');
  }
  const why = `Did not find '${name}' in the backing chain of '${filename}'`;
  throw new CowherdError('ERR_COWHERD_BACKING', why, { filename, why });
}

async function copyDown(
  image: Image,
  target: Image,
  depth: number,
  { signal, onProgress, rateLimit }: CommitOptions,
): Promise<void> {
  const { clusterSize = mostGranule } = target;
  const source: Source = {
    size: image.size,
    map: () => extentsAbove(image, depth, signal),
    read: (buffer, offset) => image.read(buffer, offset),
  };
  const copier = new Copier({
    source,
    targets: [target],
    filler: undefined,
    outOfOrder: false,
    parallel: undefined,
    granularity: Math.min(mostGranule, Math.max(leastGranule, clusterSize)),
    compress: false,
    sparseSize: 0,
    copyZeroes: false,
    zeroFrom: Infinity,
    leaveBacking: true,
    reserveAhead: false,
    salvage: false,
    rateLimit,
    onWarning: undefined,
    onProgress,
    signal,
  });
  await copier.run();
}

/** How the disk is stored above a base: what only the base has lies below. */
async function* extentsAbove(
  image: Image,
  depth: number,
  signal: CommitOptions['signal'],
): AsyncGenerator<SourceExtent> {
  for await (const extent of extentsOfLayers(image, depth, signal)) {
    // Beyond the end of one in between there are zeroes, which hide what the base has there.
    const isBelow = !extent.present && extent.depth === depth - 1;
    yield { ...extent, depth: isBelow ? 1 : 0 };
  }
}
