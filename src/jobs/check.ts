/** Whether an image that is not open is sound, in one call. */
import type { OpenImageOptions } from '../image/api/options.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import type { CheckOptions, CheckResult } from '../image/api/reports.js';
import { openImage } from '../image/graph/open.js';
import {
  type OptionRules,
  checkOptions,
  options as optionsBy,
} from '../image/options/option-check.js';
import { openImageRules } from '../image/options/open-options.js';
import { checkRules } from '../image/options/report-options.js';

/** How an image file is opened and checked. */
export interface CheckImageOptions extends CheckOptions {
  /** How it is opened; it is written only by a repair. */
  readonly image?: OpenImageOptions | undefined;
}

const rules: OptionRules<CheckImageOptions> = { ...checkRules, image: optionsBy(openImageRules) };

/**
 * Checks an image as `image.check()` does, one that is corrupt or was not closed cleanly too. One that was repaired
 * is checked again: the result is what is left, and how much was put right.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for a format without checks, or without the repair that is asked for; what opening
 *   throws
 */
export async function check(path: PathLike, options: CheckImageOptions = {}): Promise<CheckResult> {
  checkOptions(options, rules, pathOf(path));
  const { image: opening, ...checking } = options;
  const only = {
    readOnly: checking.repair === undefined,
    forCheck: true,
    backing: 'ignore',
  } as const;
  await using image = await openImage(path, { ...opening, ...only });
  const result = await image.check(checking);
  const { corruptionsFixed, leaksFixed } = result;
  if (corruptionsFixed === 0 && leaksFixed === 0) return result;
  const left = await image.check({ ...checking, repair: undefined });
  return { ...left, corruptionsFixed, leaksFixed };
}
