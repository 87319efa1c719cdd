/** What the options of the jobs may be. */
import { createRules } from '../image/create-options.js';
import {
  aioMode,
  cacheMode,
  imageFormat,
  openImageRules,
  queueCount,
  snapshotChoice,
} from '../image/open-options.js';
import {
  type OptionRule,
  type OptionRules,
  abortSignal,
  callback,
  flag,
  oneOf,
  options,
  positive,
  text,
  wholeNumber,
} from '../image/option-check.js';
import type { BenchOptions } from './bench.js';
import type { CompareOptions } from './compare.js';
import type { ConvertOptions } from './convert.js';

const parallel = wholeNumber(1, 1024);

/** What is said of each source by itself; nothing, of some. */
const eachSource: OptionRule = (value) => {
  if (!Array.isArray(value)) return 'a list of options is expected';
  const check = options(openImageRules);
  const said = (value as readonly unknown[]).filter((each) => each !== undefined);
  return said.map((each) => check(each)).find((wrong) => wrong !== undefined);
};

/** Rules of `convert`'s options. */
export const convertRules: OptionRules<ConvertOptions> = {
  from: imageFormat,
  to: imageFormat,
  options: options(createRules),
  compress: flag,
  parallel,
  queues: queueCount,
  outOfOrder: flag,
  copyOffload: flag,
  roughProgress: flag,
  skipCreate: flag,
  sparseSize: wholeNumber(0, 16 * 1024 * 1024),
  targetIsZero: flag,
  snapshot: snapshotChoice,
  salvage: flag,
  onWarning: callback,
  backing: text,
  backingFormat: imageFormat,
  rateLimit: positive,
  sourceCache: cacheMode,
  targetCache: cacheMode,
  sourceOptions: eachSource,
  targetOptions: options(openImageRules),
  onTargetFinding: callback,
  onTargetWarning: callback,
  aio: aioMode,
  forceShare: flag,
  untrusted: flag,
  onStats: callback,
  signal: abortSignal,
  onProgress: callback,
};

/** Rules of `compare`'s options. */
export const compareRules: OptionRules<CompareOptions> = {
  formatA: imageFormat,
  formatB: imageFormat,
  cache: cacheMode,
  aio: aioMode,
  forceShare: flag,
  strict: flag,
  parallel,
  queues: queueCount,
  signal: abortSignal,
  onProgress: callback,
};

/** Rules of `bench`'s options. */
export const benchRules: OptionRules<BenchOptions> = {
  count: wholeNumber(0),
  depth: wholeNumber(1, 0x7fffffff),
  bufferBytes: wholeNumber(1),
  stepBytes: wholeNumber(0),
  offset: wholeNumber(0),
  access: oneOf('seq', 'rand'),
  readPercent: wholeNumber(0, 100),
  fill: wholeNumber(0, 255),
  flushInterval: wholeNumber(0),
  drain: flag,
  queues: queueCount,
  signal: abortSignal,
};
