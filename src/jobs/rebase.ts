/** Rebasing an image: it comes to stand on another one, and shows the same disk. */
import { realpath } from 'node:fs/promises';
import { hostPath } from '../byte-names.js';
import { CowherdError, problemWith } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import type { OpenImageOptions } from '../image/api/options.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import type { ImageFormat } from '../image/api/reports.js';
import { type BackingReference, checkBackingName, nameBacking } from '../image/graph/layers.js';
import { openImage } from '../image/graph/open.js';
import { formatByDriver, canCompress } from '../image/names/formats.js';
import { resolveReference } from '../image/names/reference.js';
import {
  type OptionRules,
  abortSignal,
  anyText,
  callback,
  checkOptions,
  flag,
  options as optionsBy,
} from '../image/options/option-check.js';
import { backingFormat, openImageRules } from '../image/options/open-options.js';
import { keepContent } from './kept-content.js';

/** What an image is to stand on. */
export interface RebaseOptions extends LongOperationOptions {
  /**
   * The name of the image that it is to stand on, as it is stored: relative to the image's folder. Left out, or
   * empty, it stands on none any more.
   */
  readonly backing?: string | undefined;
  /** The format of that one, which has to be said. */
  readonly backingFormat?: ImageFormat | undefined;
  /** Change the name alone, and look at neither image below: for one that was moved or replaced by its equal. */
  readonly unsafe?: boolean | undefined;
  /** Compress what is written into the image. */
  readonly compress?: boolean | undefined;
  /** How the image is opened. */
  readonly image?: OpenImageOptions | undefined;
  /** How the one is opened that it is to stand on; it is only read. */
  readonly backingImage?: OpenImageOptions | undefined;
}

const rules: OptionRules<RebaseOptions> = {
  backing: anyText,
  backingFormat,
  unsafe: flag,
  compress: flag,
  image: optionsBy(openImageRules),
  backingImage: optionsBy(openImageRules),
  signal: abortSignal,
  onProgress: callback,
};

/**
 * Makes an image stand on another one. What would look different there is first written into it. Whatever is
 * cut off, the image names the old one or the new one, and shows the same disk.
 *
 * @throws CowherdError naming the file and what is wrong, or ERR_COWHERD_ABORTED
 */
export async function rebase(name: PathLike, options: RebaseOptions = {}): Promise<void> {
  const path = pathOf(name);
  checkOptions(options, rules, path);
  const { unsafe = false, compress = false, signal } = options;
  try {
    await using image = await openImage(path, {
      inOrder: true,
      ...options.image,
      signal,
      readOnly: false,
      // What is written is what has to be there.
      detectZeroes: 'off',
      ...(unsafe && { backing: 'ignore' }),
    });
    if (compress && !canCompress(image.format)) {
      const why = 'Compression not supported for this file format';
      throw problemWith('ERR_COWHERD_UNSUPPORTED', path, why);
    }
    const named = backingName(path, options);
    if (unsafe) await checkBackingName(image, named);
    else await writeDifferences(image, named, options);
    signal?.throwIfAborted();
    await nameBacking(image, named);
  } catch (error) {
    if (signal?.aborted !== true) throw error;
    const message = `Rebasing '${path}' was cancelled`;
    throw new CowherdError('ERR_COWHERD_ABORTED', message, { filename: path, cause: error });
  }
}

function backingName(path: string, options: RebaseOptions): BackingReference | undefined {
  const { backing: name = '', backingFormat: format } = options;
  if (name === '') return undefined;
  if (format !== undefined) return { name, format };
  const why = 'backing format must be specified';
  throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', path, why, { operation: 'name backing' });
}

async function writeDifferences(
  image: Image,
  named: BackingReference | undefined,
  options: RebaseOptions,
): Promise<void> {
  const { compress = false, signal, onProgress } = options;
  const found = named && (await foundBelow(image, named));
  const opened = found === undefined && named ? await openNew(image, named, options) : undefined;
  try {
    await checkBackingName(image, named);
    if (found?.layers === 1) return;
    await keepContent({
      image,
      before: image.backing,
      after: found?.link ?? opened,
      layers: found?.layers ?? 1,
      compress,
      signal,
      onProgress,
    });
    await image.flush();
  } finally {
    await opened?.close();
  }
}

/** The image of that name and format in the chain, and how many stand on it. */
async function foundBelow(
  image: Image,
  { name, format }: BackingReference,
): Promise<{ readonly link: Image; readonly layers: number } | undefined> {
  const place = (path: string): Promise<string> => realpath(hostPath(path)).catch(() => path);
  const wanted = await place(resolveReference(image.filename, name));
  let layers = 1;
  for (let link = image.backing; link !== undefined; link = link.backing) {
    if (link.format === formatByDriver(format) && (await place(link.filename)) === wanted)
      return { link, layers };
    layers += 1;
  }
  return undefined;
}

async function openNew(
  image: Image,
  { name, format }: BackingReference,
  { backingImage, signal }: RebaseOptions,
): Promise<Image> {
  const path = resolveReference(image.filename, name);
  try {
    return await openImage(path, {
      ...backingImage,
      format: formatByDriver(format),
      signal,
      readOnly: true,
    });
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    const message = `Could not open new backing file '${name}': ${error.message}`;
    throw new CowherdError(error.code, message, {
      operation: 'open',
      role: 'new backing',
      filename: path,
      cause: error,
    });
  }
}
