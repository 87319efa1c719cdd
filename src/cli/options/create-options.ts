/** The options of a new image as `-o` gives them: known names, their types, defaults and order. */
import { statSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import type { CreateOptions } from '../../image/api/options.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { type CreateOption, createOptionsOf, isReadableFormat } from '../../image/names/formats.js';
import { parseSize } from '../../size.js';
import { parseSwitch } from '../../switch.js';
import { CliError } from '../process/cli-error.js';
import { escapeListValue, parseOptionList } from './option-list.js';
import type { Secrets } from './secrets.js';

/**
 * The text that `-o help` prints.
 *
 * @param target name of the image to be made; what it lies in takes options too
 */
export function createOptionsHelp(format: ImageFormat, target: string | undefined): string {
  const known =
    target === undefined
      ? createOptionsOf(format).options.filter(({ isOfFile }) => isOfFile !== true)
      : optionsFor(format, target);
  const lines = optionLines(known);
  if (target !== undefined) return `Supported options:\n${lines.join('')}`;
  return [
    `Supported ${format} options:\n`,
    ...lines,
    '\nThe protocol level may support further options.\n',
    'Specify the target filename to include those options.\n',
  ].join('');
}

/** A line for each option, in the order of their names. */
export function optionLines(options: readonly CreateOption[]): readonly string[] {
  const types = { string: 'str', size: 'size', switch: 'bool (on/off)', number: 'num' };
  return [...options]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, type, help }) => `  ${`${name}=<${types[type]}>`.padEnd(22)} - ${help}\n`);
}

/** The options of a format for a target: a device takes none of those of files. */
function optionsFor(format: ImageFormat, target: string): readonly CreateOption[] {
  const isDevice = isBlockDevice(target);
  return createOptionsOf(format).options.filter(
    ({ isOfFile, name }) => !isDevice || isOfFile !== true || name === 'preallocation',
  );
}

/** The options of one new image, each a text that was checked against its type. */
export class CreateOptionValues {
  readonly #values = new Map<string, string>();

  /**
   * @param list items of the form `name=value`, separated by commas
   * @param path of the image to be made
   * @throws CliError for an unknown name or a value of the wrong type
   */
  constructor(
    readonly format: ImageFormat,
    list: string | undefined,
    path = '',
  ) {
    const options = optionsFor(format, path);
    const { options: all, refused = [] } = createOptionsOf(format);
    for (const { name, initial } of all) {
      if (initial !== undefined) this.#values.set(name, initial);
    }
    for (const { name, value } of list === undefined ? [] : parseOptionList(list)) {
      const refusal = refused.find(
        (each) => name === each.name || name.startsWith(`${each.name}.`),
      );
      if (refusal !== undefined) throw new CliError(refusal.why);
      const known = options.find((option) => option.name === name);
      if (known === undefined) throw new CliError(`Invalid parameter '${name}'`);
      this.#values.set(name, normalise(known, value));
    }
  }

  /** Whether the format knows an option of that name. */
  knows(name: string): boolean {
    return this.#options.some((option) => option.name === name);
  }

  /** The text of an option, undefined where neither given nor defaulted. */
  get(name: string): string | undefined {
    return this.#values.get(name);
  }

  /** Decides an option that was found out otherwise. */
  set(name: string, value: string): void {
    this.#values.set(name, value);
  }

  /** The line that is printed before an image is made. @param format by the name that was given */
  announcement(filename: string, format: string = this.format): string {
    const parts = [`fmt=${format}`];
    for (const { name } of this.#options) {
      const value = this.#values.get(name);
      if (value !== undefined) parts.push(`${name}=${escapeListValue(value)}`);
    }
    return `Formatting '${filename}', ${parts.join(' ')}\n`;
  }

  /**
   * The options as the library takes them, without the size.
   *
   * @param secrets that they may mean by their ids
   * @throws CliError for a value outside an option's set
   */
  toCreateOptions(secrets: Secrets = {}): CreateOptions {
    if (this.get('backing_fmt') !== undefined && this.get('backing_file') === undefined) {
      throw new CliError('Backing format cannot be used without backing file');
    }
    const options: Partial<Record<keyof CreateOptions, unknown>> = {};
    for (const option of this.#options) {
      const { name, key } = option;
      const text = this.get(name);
      if (text === undefined || key === 'size') continue;
      const [group, member] = key.split('.') as [keyof CreateOptions, string?];
      const value = valueOf(option, text);
      options[group] =
        member === undefined ? value : { ...(options[group] as object), [member]: value };
    }
    const { encrypt } = options as CreateOptions;
    const id = encrypt?.keySecret;
    if (id === undefined || !Object.hasOwn(secrets, id)) return options as CreateOptions;
    return { ...options, encrypt: { ...encrypt, secret: secrets[id] } } as CreateOptions;
  }

  get #options(): readonly CreateOption[] {
    return createOptionsOf(this.format).options;
  }
}

/** The value of an option as the library takes it. @throws CliError for one outside its set */
export function valueOf({ key, type, values, label }: CreateOption, text: string): unknown {
  if (type === 'switch') return parseSwitch(text) ?? false;
  if (type !== 'string') return Number(text);
  const isAllowed = key === 'backingFormat' ? isReadableFormat(text) : values?.includes(text);
  if (isAllowed !== false) return text;
  throw new CliError(
    label === undefined
      ? `invalid parameter value: ${text}`
      : `Parameter '${label}' does not accept value '${text}'`,
  );
}

/** What is said of a value that is no size. */
export function sizeExpected(name: string): string {
  return (
    `Parameter '${name}' expects a non-negative number below 2^64\n` +
    'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
    'and exabytes, respectively.'
  );
}

/** The value as it is printed. @throws CliError for one of another type */
export function normalise({ name, type }: CreateOption, value: string): string {
  switch (type) {
    case 'string':
      return value;
    case 'switch':
      if (parseSwitch(value) !== undefined) return value;
      throw new CliError(`Parameter '${name}' expects 'on' or 'off'`);
    case 'number': {
      const number = parseNumber(value);
      if (number !== undefined) return String(number);
      throw new CliError(`Parameter '${name}' expects a number`);
    }
    case 'size': {
      const size = parseSize(value);
      if (typeof size === 'bigint') return String(size);
      throw new CliError(sizeExpected(name));
    }
  }
}

/** An integer as C writes it: hexadecimal after `0x`, octal after `0`. */
function parseNumber(text: string): number | undefined {
  const match = /^\s*([+-]?)(?:(0x[0-9a-f]+)|0([0-7]*)|([1-9]\d*))$/i.exec(text);
  if (!match) return undefined;
  const [, sign, hexadecimal, octal, decimal] = match as (string | undefined)[];
  const magnitude =
    octal !== undefined ? Number.parseInt(octal || '0', 8) : Number(hexadecimal ?? decimal);
  return sign === '-' ? -magnitude : magnitude;
}

/** Whether a path is a device's; what is wrong with one is told where it is opened. */
function isBlockDevice(path: string): boolean {
  try {
    return statSync(hostPath(path)).isBlockDevice();
  } catch {
    return false;
  }
}
