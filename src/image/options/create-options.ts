/** What the options of a new image may be, by the schemas of the formats. */
import { type CreateOption, fileOptions } from '../../format/create-options.js';
import { creatableFormats } from '../../format/registry.js';
import type { CreateImageOptions, CreateOptions } from '../api/options.js';
import {
  type OptionRule,
  type OptionRules,
  abortSignal,
  anyText,
  callback,
  flag,
  number,
  options,
  secret,
  size,
  text,
} from './option-check.js';

/** Types; what values mean is looked at by the format, together with the others. */
const ruleOf: Readonly<Record<CreateOption['type'], OptionRule>> = {
  string: anyText,
  size,
  switch: flag,
  number,
};

/** What programs give of encryption besides what has a name at a shell. */
const secretRules = { secret };

/** Rules of the options that some format has. */
function createRules(): OptionRules<CreateOptions> {
  const known = [...creatableFormats().flatMap(({ creation }) => creation.options), ...fileOptions];
  const grouped: Record<string, OptionRule> = { ...secretRules };
  const rules: Record<string, OptionRule> = { encrypt: options(grouped) };
  for (const { key, type } of known) {
    const [, member] = key.split('.') as [string, string?];
    if (member !== undefined) grouped[member] = ruleOf[type];
    else if (key !== 'size') rules[key] = ruleOf[type];
  }
  return rules as OptionRules<CreateOptions>;
}

/** The options of a new image among those of a job. */
export const createOptions: OptionRule = (value) => options(createRules())(value);

/** Rules of `createImage`'s options. */
export function createImageRules(): OptionRules<CreateImageOptions> {
  return {
    ...createRules(),
    format: text,
    size,
    backingUnchecked: flag,
    durable: flag,
    onWarning: callback,
    signal: abortSignal,
  };
}
