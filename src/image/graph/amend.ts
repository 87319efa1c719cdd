/** Another version, other features, another size: an open image comes to be of another kind. */
import { problemWith } from '../../errors.js';
import type { FormatChanges } from '../../format/driver.js';
import type { PasswordChange } from '../../format/encryption/passwords.js';
import { sizeInBytes } from '../../size.js';
import type { AmendOptions } from '../api/options.js';
import {
  type OptionRules,
  abortSignal,
  anyText,
  callback,
  checkOptions,
  flag,
  number,
  oneOf,
  options as optionRules,
  secret,
  size as sizeRule,
  wholeNumber,
} from '../options/option-check.js';
import { resizeDisk } from './resize.js';
import { type WholeDisk, checkWritable } from './whole-disk.js';

const passwordRules: OptionRules<PasswordChange> = {
  state: oneOf('active', 'inactive'),
  newSecret: secret,
  newKeySecret: anyText,
  oldSecret: secret,
  oldKeySecret: anyText,
  keyslot: wholeNumber(-Infinity),
  iterTime: wholeNumber(0),
  force: flag,
};

/** Rules of `amend`'s options. */
const amendRules: OptionRules<AmendOptions> = {
  compat: anyText,
  refcountBits: number,
  lazyRefcounts: flag,
  backingFile: anyText,
  backingFormat: anyText,
  dataFile: anyText,
  dataFileRaw: flag,
  encrypt: optionRules(passwordRules),
  size: sizeRule,
  signal: abortSignal,
  onProgress: callback,
};

/** See `Image.amend`. */
export async function amendDisk(disk: WholeDisk, options: AmendOptions): Promise<void> {
  const { filename, format, node } = disk;
  checkOptions(options, amendRules, filename);
  const { size: wanted, signal, onProgress, ...changes } = options;
  const { amendment } = format;
  checkWritable(disk);
  if (amendment === undefined) {
    const why = 'the format does not support option amendment';
    throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why);
  }
  const size = wanted === undefined ? node.size : sizeInBytes(wanted, 'image size');
  const change = {
    signal,
    onProgress: (doneBytes: number, totalBytes: number) => {
      onProgress?.({ doneBytes, totalBytes });
    },
  };
  const given: FormatChanges = changes;
  await node.runAlone(() => amendment.check(given, size));
  signal?.throwIfAborted();
  await node.runAlone(() => amendment.begin(given, change));
  signal?.throwIfAborted();
  if (size !== node.size) await resizeDisk(disk, size, { shrink: true, signal });
  await node.runAlone(() => amendment.finish(given, change));
}
