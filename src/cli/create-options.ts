/** The options of a new image as `-o` gives them: known names, their types, defaults and order. */
import { statSync } from 'node:fs';
import { hostPath } from '../byte-names.js';
import type { CreateOptions, ImageFormat, Preallocation } from '../image/api.js';
import { parseSize } from '../image/size.js';
import { CliError } from './cli-error.js';
import { isImageFormat } from './formats.js';
import { escapeListValue, parseOptionList, parseSwitch } from './option-list.js';

interface KnownOption {
  readonly name: string;
  readonly type: 'string' | 'size' | 'switch' | 'number';
  readonly help: string;
  readonly initial?: string;
}

const fileOptions: readonly KnownOption[] = [
  { name: 'nocow', type: 'switch', help: 'Turn off copy-on-write (valid only on btrfs)' },
  {
    name: 'extent_size_hint',
    type: 'size',
    help: 'Extent size hint for the image file, 0 to disable',
  },
];

function preallocationOption(...modes: readonly Preallocation[]): KnownOption {
  const help = `Preallocation mode (allowed values: ${modes.join(', ')})`;
  return { name: 'preallocation', type: 'string', help };
}

const sizeOption: KnownOption = { name: 'size', type: 'size', help: 'Virtual disk size' };

/** Options in the order in which they are printed. */
const knownOptions: Readonly<Record<ImageFormat, readonly KnownOption[]>> = {
  raw: [sizeOption, preallocationOption('off', 'falloc', 'full'), ...fileOptions],
  qcow2: [
    { name: 'cluster_size', type: 'size', help: 'qcow2 cluster size', initial: '65536' },
    { name: 'extended_l2', type: 'switch', help: 'Extended L2 tables', initial: 'off' },
    preallocationOption('off', 'metadata', 'falloc', 'full'),
    {
      name: 'compression_type',
      type: 'string',
      help: 'Compression method used for image cluster compression',
      initial: 'zlib',
    },
    sizeOption,
    { name: 'compat', type: 'string', help: 'Compatibility level (v2 [0.10] or v3 [1.1])' },
    { name: 'backing_file', type: 'string', help: 'File name of a base image' },
    { name: 'backing_fmt', type: 'string', help: 'Image format of the base image' },
    { name: 'data_file', type: 'string', help: 'File name of an external data file' },
    {
      name: 'data_file_raw',
      type: 'switch',
      help: 'The external data file must stay valid as a raw image',
    },
    { name: 'lazy_refcounts', type: 'switch', help: 'Postpone refcount updates', initial: 'off' },
    {
      name: 'refcount_bits',
      type: 'number',
      help: 'Width of a reference count entry in bits',
      initial: '16',
    },
    ...fileOptions,
  ],
};

const preallocations: readonly Preallocation[] = ['off', 'metadata', 'falloc', 'full'];

/**
 * The text that `-o help` prints.
 *
 * @param target name of the image to be made; what it lies in takes options too
 */
export function createOptionsHelp(format: ImageFormat, target: string | undefined): string {
  const types = { string: 'str', size: 'size', switch: 'bool (on/off)', number: 'num' };
  const isOwn = ({ name }: KnownOption): boolean =>
    format === 'raw' ? name === 'size' : !fileOptions.some((option) => option.name === name);
  const known =
    target === undefined ? knownOptions[format].filter(isOwn) : optionsFor(format, target);
  const lines = [...known]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, type, help }) => `  ${`${name}=<${types[type]}>`.padEnd(22)} - ${help}\n`);
  if (target !== undefined) return `Supported options:\n${lines.join('')}`;
  return [
    `Supported ${format} options:\n`,
    ...lines,
    '\nThe protocol level may support further options.\n',
    'Specify the target filename to include those options.\n',
  ].join('');
}

/** The options of a format for a target: a device takes none of those of files. */
function optionsFor(format: ImageFormat, target: string): readonly KnownOption[] {
  const isDevice = isBlockDevice(target);
  return knownOptions[format].filter((option) => !isDevice || !fileOptions.includes(option));
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
    for (const { name, initial } of knownOptions[format]) {
      if (initial !== undefined) this.#values.set(name, initial);
    }
    for (const { name, value } of list === undefined ? [] : parseOptionList(list)) {
      if (format === 'qcow2' && /^encrypt(?:ion$|\.)/.test(name)) {
        throw new CliError('Creating encrypted images is not supported');
      }
      const known = options.find((option) => option.name === name);
      if (known === undefined) throw new CliError(`Invalid parameter '${name}'`);
      this.#values.set(name, normalise(known, value));
    }
  }

  /** Whether the format knows an option of that name. */
  knows(name: string): boolean {
    return knownOptions[this.format].some((option) => option.name === name);
  }

  /** The text of an option, undefined where neither given nor defaulted. */
  get(name: string): string | undefined {
    return this.#values.get(name);
  }

  /** Decides an option that was found out otherwise. */
  set(name: string, value: string): void {
    this.#values.set(name, value);
  }

  /** The line that is printed before an image is made. */
  announcement(filename: string): string {
    const parts = [`fmt=${this.format}`];
    for (const { name } of knownOptions[this.format]) {
      const value = this.#values.get(name);
      if (value !== undefined) parts.push(`${name}=${escapeListValue(value)}`);
    }
    return `Formatting '${filename}', ${parts.join(' ')}\n`;
  }

  /**
   * The options as the library takes them, without the size.
   *
   * @throws CliError for a value outside an option's set
   */
  toCreateOptions(): CreateOptions {
    const oneOf = <T extends string>(name: string, label: string, set: readonly T[]): T => {
      const value = this.get(name) ?? set[0];
      const found = set.find((member) => member === value);
      if (found !== undefined) return found;
      throw new CliError(
        this.format === 'raw'
          ? `invalid parameter value: ${value}`
          : `Parameter '${label}' does not accept value '${value}'`,
      );
    };
    const preallocation = oneOf('preallocation', 'preallocation', preallocations);
    const hint = this.get('extent_size_hint');
    const file = {
      nocow: this.#isOn('nocow'),
      ...(hint !== undefined && { extentSizeHint: hint }),
    };
    if (this.format === 'raw') return { preallocation, ...file };
    const backingFile = this.get('backing_file');
    const backingFormat = this.get('backing_fmt');
    const dataFile = this.get('data_file');
    if (backingFormat !== undefined && backingFile === undefined) {
      throw new CliError('Backing format cannot be used without backing file');
    }
    if (backingFormat !== undefined && !isImageFormat(backingFormat)) {
      throw new CliError(`Parameter 'backing-fmt' does not accept value '${backingFormat}'`);
    }
    return {
      ...file,
      clusterSize: Number(this.get('cluster_size')),
      extendedL2: this.#isOn('extended_l2'),
      preallocation,
      compressionType: oneOf('compression_type', 'compression-type', ['zlib', 'zstd']),
      compat: oneOf('compat', 'version', ['1.1', '0.10', 'v2', 'v3']),
      lazyRefcounts: this.#isOn('lazy_refcounts'),
      refcountBits: Number(this.get('refcount_bits')),
      dataFileRaw: this.#isOn('data_file_raw'),
      ...(backingFile !== undefined && { backingFile }),
      ...(backingFormat !== undefined && { backingFormat }),
      ...(dataFile !== undefined && { dataFile }),
    };
  }

  #isOn(name: string): boolean {
    return parseSwitch(this.get(name) ?? 'off') ?? false;
  }
}

/** The value as it is printed. */
function normalise({ name, type }: KnownOption, value: string): string {
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
      throw new CliError(
        `Parameter '${name}' expects a non-negative number below 2^64\n` +
          'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
          'and exabytes, respectively.',
      );
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
