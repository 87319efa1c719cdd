/** What the options of opening an image and its queues may be. */
import assert from 'node:assert/strict';
import { maxQueues } from '../../engine/words/control-block.js';
import type { ThrottleOptions } from '../../engine/throttle.js';
import { cannotOpen } from '../../errors.js';
import { formatNames, formatOpenOptions } from '../../format/registry.js';
import type { OpenOption } from '../../storage/open-option.js';
import { driverNames, fileOpenOptions } from '../../storage/registry.js';
import { problemWithFilter } from '../../storage/filters/registry.js';
import type {
  DecryptOptions,
  HttpOptions,
  NbdOptions,
  NullOptions,
  OpenImageOptions,
} from '../api/options.js';
import { formatByDriver, isReadableFormat } from '../names/formats.js';
import {
  type OptionRule,
  type OptionRules,
  abortSignal,
  anyText,
  callback,
  checkOptions,
  flag,
  oneOf,
  options,
  positive,
  secret,
  text,
  wholeNumber,
} from './option-check.js';

/** Formats of images. */
export const imageFormat: OptionRule = (value) =>
  typeof value === 'string' && isReadableFormat(value)
    ? undefined
    : `one of ${formatNames().join(', ')} is expected`;
/** Formats of backing files, for which a driver of files may stand. */
export const backingFormat: OptionRule = (value) =>
  imageFormat(typeof value === 'string' ? formatByDriver(value) : value);
/** Cache modes of files. */
export const cacheMode: OptionRule = oneOf(
  'writeback',
  'none',
  'writethrough',
  'directsync',
  'unsafe',
);
/** I/O engines. */
export const aioMode: OptionRule = oneOf('auto', 'io_uring', 'threads');
/** How many queues one job or pool may have: one line more is that of the image itself. */
export const queueCount: OptionRule = wholeNumber(1, maxQueues - 1);

const throttleRules: OptionRules<ThrottleOptions> = {
  operationsPerSecond: positive,
  bytesPerSecond: positive,
  operationsBurst: positive,
  bytesBurst: positive,
};

/** Names and values of headers. */
const headers: OptionRule = (value) =>
  typeof value === 'object' &&
  value !== null &&
  Object.values(value).every((each) => typeof each === 'string')
    ? undefined
    : 'an object of strings is expected';

/** What a program may give for an option that has a name at a shell too. */
function ruleOf({ type }: OpenOption): OptionRule {
  if (type === 'switch') return flag;
  if (type === 'size') return wholeNumber(0);
  if (type === 'seconds') return positive;
  return type === 'text' ? anyText : oneOf(...type);
}

/** The options of formats and of files that say what a program sets. */
const definitions = [
  ...formatOpenOptions(undefined),
  ...driverNames().flatMap((name) => fileOpenOptions(name)),
];

/** The rule of an option where it is defined. @param key with the member it lies in, if it does */
function defined(key: string): OptionRule {
  const option = definitions.find((each) => each.key === key);
  assert(option !== undefined, `no format and no storage defines the option ${key}`);
  return ruleOf(option);
}

const httpRules: OptionRules<HttpOptions> = {
  headers,
  timeoutSeconds: defined('http.timeoutSeconds'),
  verifyCertificate: defined('http.verifyCertificate'),
  readAheadBytes: defined('http.readAheadBytes'),
  username: defined('http.username'),
  password: anyText,
};

const nullRules: OptionRules<NullOptions> = {
  size: defined('null.size'),
  latencyNs: defined('null.latencyNs'),
  readZeroes: defined('null.readZeroes'),
};

const nbdRules: OptionRules<NbdOptions> = {
  reconnectSeconds: defined('nbd.reconnectSeconds'),
  tlsCredentials: defined('nbd.tlsCredentials'),
  tlsHostname: defined('nbd.tlsHostname'),
  tlsUsername: defined('nbd.tlsUsername'),
};

/** Which internal snapshot: one whose id or name it is, or what both have to be. */
export const snapshotChoice: OptionRule = (value) =>
  typeof value === 'string' ? undefined : options({ id: anyText, name: anyText })(value);

/** Filters of a file. */
const filters: OptionRule = (value) => {
  if (!Array.isArray(value)) return 'a list of filters is expected';
  const problems = (value as readonly unknown[]).map((each) => problemWithFilter(each));
  return problems.find((problem) => problem !== undefined);
};

const cacheRules: OptionRules<NonNullable<OpenImageOptions['caches']>> = {
  l2: defined('caches.l2'),
  refcounts: defined('caches.refcounts'),
  l2Entry: defined('caches.l2Entry'),
};

const encryptRules: OptionRules<DecryptOptions> = {
  format: defined('encrypt.format'),
  keySecret: defined('encrypt.keySecret'),
  secret,
};

const secretsById: OptionRule = (value) =>
  typeof value === 'object' &&
  value !== null &&
  Object.values(value).every((each) => secret(each) === undefined)
    ? undefined
    : 'an object of strings or Uint8Arrays is expected';

/** Rules of `openImage`'s options. */
export const openImageRules: OptionRules<OpenImageOptions> = {
  format: imageFormat,
  readOnly: flag,
  cache: cacheMode,
  aio: aioMode,
  cacheSize: defined('cacheSize'),
  caches: options(cacheRules),
  backing: oneOf('allow', 'deny', 'ignore'),
  backingFile: text,
  backingFormat,
  dataFile: text,
  untrusted: flag,
  detectZeroes: oneOf('off', 'on', 'unmap'),
  discard: oneOf('unmap', 'ignore'),
  overlapCheck: defined('overlapCheck'),
  lazyRefcounts: defined('lazyRefcounts'),
  forceShare: flag,
  locking: oneOf('auto', 'off'),
  shareWriting: flag,
  snapshot: snapshotChoice,
  window: options({ offset: defined('window.offset'), size: defined('window.size') }),
  unpack: flag,
  http: options(httpRules),
  nbd: options(nbdRules),
  null: options(nullRules),
  signal: abortSignal,
  filters,
  fullName: anyText,
  encrypt: options(encryptRules),
  secrets: secretsById,
  throttle: options(throttleRules),
  forCheck: flag,
  forInfo: flag,
  inOrder: flag,
  reserveAhead: flag,
  onFinding: callback,
};

/**
 * Checks the options of an image that is to be opened.
 *
 * @throws ERR_COWHERD_UNKNOWN_FORMAT, ERR_COWHERD_INVALID_ARGUMENT
 */
export function checkOpenOptions(filename: string, given: OpenImageOptions): void {
  checkOptions(given, openImageRules, filename);
  const { forceShare, readOnly, snapshot } = given;
  if (forceShare === true && readOnly !== true && snapshot === undefined) {
    // Without locks of its own nothing would keep two writers apart.
    throw cannotOpen(
      'ERR_COWHERD_INVALID_ARGUMENT',
      filename,
      'force-share=on can only be used with read-only images',
    );
  }
}

/** Checks the options of a queue that is to be opened. @throws ERR_COWHERD_INVALID_ARGUMENT */
export function checkQueueOptions(
  filename: string,
  given: { readonly throttle?: ThrottleOptions | undefined },
): void {
  checkOptions(given, { throttle: options(throttleRules) }, filename);
}
