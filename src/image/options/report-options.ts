/** Options of reports about an image. */
import type { CheckOptions } from '../api/reports.js';
import { queueCount } from './open-options.js';
import { type OptionRules, abortSignal, callback, oneOf, wholeNumber } from './option-check.js';

/** Rules of the part of a disk that a report is about. */
export const mapRules = {
  offset: wholeNumber(0),
  length: (value: unknown) => (value === Infinity ? undefined : wholeNumber(0)(value)),
  signal: abortSignal,
};

/** Rules of `check`'s options. */
export const checkRules: OptionRules<CheckOptions> = {
  repair: oneOf('leaks', 'all'),
  onFinding: callback,
  queues: queueCount,
  signal: abortSignal,
  onProgress: callback,
};
