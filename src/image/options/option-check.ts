/**
 * Checks options where they are handed in: one wrong in name, type or range is refused at the call,
 * with one line that names it, instead of being taken for something else.
 */
import { types } from 'node:util';
import { problemWith } from '../../errors.js';

/** Says what a value should be, if it is not that. */
export type OptionRule = (value: unknown) => string | undefined;

/** A rule for each option of a type; the compiler asks for one where an option is added. */
export type OptionRules<Options> = Readonly<Record<keyof Options, OptionRule>>;

/** `true` or `false`. */
export const flag: OptionRule = (value) =>
  typeof value === 'boolean' ? undefined : 'true or false is expected';

/** A string that is not empty. */
export const text: OptionRule = (value) =>
  typeof value === 'string' && value !== '' ? undefined : 'a string is expected';

/** A string. */
export const anyText: OptionRule = (value) =>
  typeof value === 'string' ? undefined : 'a string is expected';

/** A secret: text, or its bytes. */
export const secret: OptionRule = (value) =>
  typeof value === 'string' || types.isUint8Array(value)
    ? undefined
    : 'a string or a Uint8Array is expected';

/** A function. */
export const callback: OptionRule = (value) =>
  typeof value === 'function' ? undefined : 'a function is expected';

/** A number, whichever. */
export const number: OptionRule = (value) =>
  typeof value === 'number' ? undefined : 'a number is expected';

/** A number above zero, and below infinity. */
export const positive: OptionRule = (value) =>
  typeof value === 'number' && value > 0 && value < Infinity
    ? undefined
    : 'a number above zero is expected';

/** An `AbortSignal`. */
export const abortSignal: OptionRule = (value) =>
  typeof value === 'object' && value !== null && 'aborted' in value && 'addEventListener' in value
    ? undefined
    : 'an AbortSignal is expected';

/** A date that there is. */
export const date: OptionRule = (value) =>
  value instanceof Date && !Number.isNaN(value.getTime()) ? undefined : 'a Date is expected';

/** A size as a number of bytes or as text; what it says is looked at where it is parsed. */
export const size: OptionRule = (value) =>
  typeof value === 'number' || typeof value === 'string'
    ? undefined
    : 'a number of bytes, or a string with a suffix, is expected';

/** A whole number within bounds, which count as allowed. */
export function wholeNumber(from: number, to = Infinity): OptionRule {
  const range = to === Infinity ? `of at least ${from}` : `from ${from} to ${to}`;
  return (value) =>
    Number.isInteger(value) && (value as number) >= from && (value as number) <= to
      ? undefined
      : `a whole number ${range} is expected`;
}

/** One of a list of strings. */
export function oneOf(...values: readonly string[]): OptionRule {
  return (value) =>
    typeof value === 'string' && values.includes(value)
      ? undefined
      : `one of ${values.join(', ')} is expected`;
}

/** An object of options that have rules of their own. */
export function options<Options>(rules: OptionRules<Options>): OptionRule {
  return (value) => problemIn(value, rules);
}

/**
 * Checks options against their rules; what is undefined counts as left out.
 *
 * @param filename the file that the call is about
 * @param required options that may not be left out
 * @throws ERR_COWHERD_INVALID_ARGUMENT naming the first option that is unknown or wrong
 */
export function checkOptions<Options>(
  given: unknown,
  rules: OptionRules<Options>,
  filename: string,
  required: readonly (keyof Options & string)[] = [],
): void {
  const missing = (): string | undefined => {
    const name = required.find((each) => (given as Partial<Options>)[each] === undefined);
    return name === undefined ? undefined : `${name} is left out`;
  };
  const problem = problemIn(given, rules) ?? missing();
  if (problem === undefined) return;
  throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, `Invalid options: ${problem}`);
}

function problemIn<Options>(given: unknown, rules: OptionRules<Options>): string | undefined {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    return 'an object is expected';
  }
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(rules, name)) return `there is no option '${name}'`;
    if (value === undefined) continue;
    const problem = rules[name as keyof Options](value);
    if (problem !== undefined) return `${name} is ${shown(value)}: ${problem}`;
  }
  return undefined;
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'function') return 'a function';
  return String(value);
}
