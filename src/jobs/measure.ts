/** How large an image would be that is made of another one, or empty. */
import type { Image } from '../image/api/image.js';
import type { CreateOptions, OpenImageOptions } from '../image/api/options.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import type { ImageFormat } from '../image/api/reports.js';
import { type MeasuredContent, type Measurement, measureNew } from '../image/graph/create.js';
import { isImage } from '../image/graph/is-image.js';
import { openImage } from '../image/graph/open.js';
import { createImageRules } from '../image/options/create-options.js';
import { abortSignal, checkOptions, options as optionsBy } from '../image/options/option-check.js';
import { openImageRules } from '../image/options/open-options.js';
import { diskSize } from '../size.js';
import type { AbortSignalLike } from '../abort-signal.js';

export type { Measurement } from '../image/graph/create.js';

/** What an image would be made of: an open image, one by its name, or a size in bytes with a suffix if wanted. */
export type MeasuredSource = Image | PathLike | { readonly size: number | string };

/** The image that would be made. */
export interface MeasureOptions extends CreateOptions {
  /** One whose size is told before it is made: `raw` or `qcow2`. */
  readonly format: ImageFormat;
  /** How an image that is named is opened; it is only read. */
  readonly image?: OpenImageOptions | undefined;
  readonly signal?: AbortSignalLike | undefined;
}

/**
 * Tells how many bytes an image takes before it is made.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for a format that does not tell, ERR_COWHERD_INVALID_ARGUMENT naming the
 *   option that is wrong, or what opening and reading throws
 */
export async function measure(
  source: MeasuredSource,
  options: MeasureOptions,
): Promise<Measurement> {
  const rules = {
    ...createImageRules(),
    image: optionsBy(openImageRules),
    signal: abortSignal,
  };
  checkOptions(options, rules, '', ['format']);
  const { image: opening, signal, ...target } = options;
  if (isImage(source))
    return await measureNew(target, source.size, await contentOf(source, signal));
  if (typeof source === 'object' && 'size' in source) {
    return await measureNew(target, diskSize(source.size));
  }
  await using image = await openImage(pathOf(source), { ...opening, readOnly: true });
  return await measureNew(target, image.size, await contentOf(image, signal));
}

async function contentOf(
  image: Image,
  signal: AbortSignalLike | undefined,
): Promise<MeasuredContent> {
  const { bitmaps } = await image.info();
  return {
    bitmaps,
    async *data() {
      const range = signal === undefined ? {} : { signal };
      for await (const { start, length, data, zero } of image.map(range)) {
        if (data && !zero) yield { start, length };
      }
    },
  };
}
