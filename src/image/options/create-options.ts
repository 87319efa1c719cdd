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

/** Rules of the options that some format has. */
function createRules(): OptionRules<CreateOptions> {
  const known = [...creatableFormats().flatMap(({ creation }) => creation.options), ...fileOptions];
  const rules = known
    .filter(({ key }) => key !== 'size')
    .map(({ key, type }) => [key, ruleOf[type]] as const);
  return Object.fromEntries(rules) as OptionRules<CreateOptions>;
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
