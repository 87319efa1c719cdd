/** What is told of an image that is not open, in one call. */
import type { OpenImageOptions } from '../image/api/options.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import type { ImageInfo } from '../image/api/reports.js';
import { openImage } from '../image/graph/open.js';
import { checkOptions } from '../image/options/option-check.js';
import { openImageRules } from '../image/options/open-options.js';

/**
 * Tells what an image is, as `image.info()` does. It is only read, no image below it and no data file of it is
 * opened, and one that is encrypted needs no secret.
 *
 * @param options of opening; what an image is opened for is not to be chosen
 * @throws what opening throws
 */
export async function info(path: PathLike, options: OpenImageOptions = {}): Promise<ImageInfo> {
  const name = pathOf(path);
  checkOptions(options, openImageRules, name);
  const only = { readOnly: true, forInfo: true, backing: 'ignore' } as const;
  await using image = await openImage(path, { ...options, ...only });
  return await image.info();
}
