/**
 * Images named by lists of options, as QEMU's block layer takes them: `driver=qcow2,file.filename=NAME`.
 * What can be carried out is, what changes nothing that can be seen is taken, and the rest is refused.
 */
import type { FilterChoice, HttpOptions, OpenImageOptions } from '../../image/api/options.js';
import type { ImageFormat } from '../../image/api/reports.js';
import {
  defaultFormatName,
  formatByBytes,
  isReadableFormat,
  takesOption,
} from '../../image/names/formats.js';
import {
  type NamedFilter,
  driverNames,
  fileDriverName,
  filterList,
  filterNamed,
  jsonOptions,
  nameOption,
  problemWithFilter,
  shellName,
} from '../../image/names/json-name.js';
import { parseSize } from '../../size.js';
import type { CliError } from '../process/cli-error.js';
import { parseOptionList, parseSwitch } from './option-list.js';

/** What a list of options says of how to open an image. */
export interface OpeningOptions {
  readonly readOnly?: boolean;
  readonly forceShare?: boolean;
  readonly cache?: OpenImageOptions['cache'];
  readonly aio?: OpenImageOptions['aio'];
  readonly cacheSize?: number;
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  readonly lazyRefcounts?: boolean;
  readonly overlapCheck?: OpenImageOptions['overlapCheck'];
  readonly http?: HttpOptions;
  readonly filters?: readonly FilterChoice[];
  readonly window?: OpenImageOptions['window'];
  readonly dataFile?: string;
  readonly backingFile?: string;
  readonly backingFormat?: ImageFormat;
}

/** An image that a list names. */
export interface ListedImage {
  readonly path: string;
  readonly format: ImageFormat | undefined;
  readonly opening: OpeningOptions;
}

type Refuse = (message: string) => CliError;

/**
 * Understands a list of options.
 *
 * @param forWriting whether the image is to be written to
 * @throws CliError for an option that is not known, or cannot be kept
 */
export function parseImageOptions(given: string, refuse: Refuse, forWriting: boolean): ListedImage {
  // A single word would be the name of a node of a running machine, of which there is none here.
  if (!given.includes('=')) throw refuse(`Cannot find device='${given}' nor node-name='${given}'`);
  const values = parseOptionList(given).map(({ name, value }) => [name, value] as const);
  return new OptionReader(new Map(values), refuse, forWriting).read();
}

/**
 * Understands a name that is such a list as JSON, `json:{"driver":"qcow2","file":{...}}`.
 *
 * @param forWriting whether the image is to be written to
 * @throws CliError as `parseImageOptions` does
 */
export function parseJsonOptions(given: string, refuse: Refuse, forWriting: boolean): ListedImage {
  const options = jsonOptions(given);
  if (options === undefined) throw refuse('Could not parse the JSON options');
  const values = new Map<string, string>();
  for (const [name, value] of options) {
    if (typeof value === 'boolean') values.set(name, value ? 'on' : 'off');
    else if (typeof value === 'string' || typeof value === 'number') values.set(name, `${value}`);
    else throw refuse(`The option '${name}' of the name has no value that is understood`);
  }
  return new OptionReader(values, refuse, forWriting).read();
}

/** QEMU has two names for it. */
const overlapNames = ['overlap-check', 'overlap-check.template'] as const;
const overlapLevels = ['none', 'constant', 'cached', 'all'] as const;
/** Sizes of caches and times that change how fast it goes, and nothing else. */
const tuning = ['refcount-cache-size', 'l2-cache-entry-size', 'cache-clean-interval'];

class OptionReader {
  readonly #values: Map<string, string>;
  readonly #opening: { -readonly [Key in keyof OpeningOptions]: OpeningOptions[Key] } = {};

  constructor(
    values: Map<string, string>,
    private readonly refuse: Refuse,
    private readonly forWriting: boolean,
  ) {
    this.#values = values;
  }

  read(): ListedImage {
    const driver = this.#values.get('driver');
    // What is opened as a file alone is its bytes.
    const isFile = driver !== undefined && isOfFiles(driver);
    if (!isFile) this.#take('driver');
    const format = this.#formatOf(isFile ? defaultFormatName : driver);
    const filePrefix = this.#takeFilters(isFile ? '' : 'file.');
    const fileDriver = this.#takeDriver(`${filePrefix}driver`);
    const pathOption = nameOption(fileDriver);
    const path = this.#take(`${filePrefix}${pathOption ?? ''}`);
    if (path === undefined) {
      const what = isFile ? `The '${fileDriver}' block driver requires a file name` : noFile;
      throw this.refuse(what);
    }
    if (!isFile) this.#takeCommon('');
    this.#takeCommon(filePrefix);
    if (pathOption === 'url') this.#takeWeb(filePrefix);
    else this.#takeFile(filePrefix);
    if (!isFile) this.#takeOwn(format);
    const unknown = [...this.#values.keys()].at(0);
    if (unknown !== undefined) {
      const name = isFile ? driver : (format ?? formatByBytes(path));
      throw this.refuse(`Block format '${name}' does not support the option '${unknown}'`);
    }
    if (this.forWriting && this.#opening.forceShare === true) {
      throw this.refuse('force-share=on can only be used with read-only images');
    }
    return { path, format, opening: this.#opening };
  }

  /**
   * The filters over a file, from the outermost on; each has what is below it as its `file`.
   *
   * @returns the prefix of the options of what is below all of them
   */
  #takeFilters(prefix: string): string {
    const filters: unknown[] = [];
    let below = prefix;
    for (;;) {
      const filter = filterNamed(this.#values.get(`${below}driver`));
      if (filter === undefined) break;
      this.#take(`${below}driver`);
      this.#takeCommon(below);
      filters.push(this.#takeFilter(filter, below));
      below = `${below}file.`;
    }
    // Each has been read by the definition that is its type.
    if (filters.length > 0) this.#opening.filters = filters as FilterChoice[];
    return below;
  }

  #takeFilter(filter: NamedFilter, prefix: string): unknown {
    const choice: Record<string, unknown> = { name: filter.name };
    for (const [key, { parse, expected }] of Object.entries(filter.options)) {
      const name = `${prefix}${shellName(key)}`;
      const text = this.#take(name);
      if (text === undefined) continue;
      const value = parse(text);
      if (value === undefined) throw this.refuse(`Parameter '${name}' expects ${expected}`);
      choice[key] = value;
    }
    const isOwn = (name: string): boolean =>
      name.startsWith(prefix) && !name.slice(prefix.length).includes('.');
    const further = [...this.#values.keys()].find(isOwn);
    const unknown = further === undefined ? undefined : { [further.slice(prefix.length)]: '' };
    const problem = problemWithFilter({ ...choice, ...unknown }, shellName);
    if (problem !== undefined) throw this.refuse(problem);
    return choice;
  }

  #formatOf(driver: string | undefined): ImageFormat | undefined {
    if (driver === undefined || isReadableFormat(driver)) return driver;
    throw this.refuse(`Unknown driver '${driver}'`);
  }

  /** What every node takes. */
  #takeCommon(prefix: string): void {
    // Names of nodes are for machines that run.
    this.#take(`${prefix}node-name`);
    this.#takeSwitch(`${prefix}auto-read-only`);
    if (this.#takeSwitch(`${prefix}read-only`) === true) this.#opening.readOnly = true;
    if (this.#takeSwitch(`${prefix}force-share`) === true) this.#opening.forceShare = true;
    const direct = this.#takeSwitch(`${prefix}cache.direct`);
    const unsafe = this.#takeSwitch(`${prefix}cache.no-flush`);
    if (direct === true) {
      if (unsafe === true) throw this.#cannot('cache.direct=on together with cache.no-flush=on');
      this.#opening.cache = 'none';
    } else if (unsafe === true) this.#opening.cache = 'unsafe';
    const discard = this.#takeOne(`${prefix}discard`, ['ignore', 'off', 'unmap', 'on']);
    const keeps = discard === 'ignore' || discard === 'off';
    if (this.forWriting && keeps) throw this.#cannot(`discard=${discard} of an image written to`);
    const zeroes = this.#takeOne(`${prefix}detect-zeroes`, ['off', 'on', 'unmap']);
    if (zeroes === undefined) return;
    if (zeroes === 'unmap' && (discard === undefined || keeps)) {
      throw this.refuse(
        'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
      );
    }
    this.#opening.detectZeroes = zeroes;
  }

  /** What the node of the file takes. */
  #takeFile(prefix: string): void {
    const locking = this.#takeOne(`${prefix}locking`, ['auto', 'on', 'off']);
    if (locking === 'off') {
      if (this.forWriting) throw this.#cannot(`${prefix}locking=off of an image written to`);
      this.#opening.forceShare = true;
    }
    const aio = this.#takeOne(`${prefix}aio`, ['threads', 'native', 'io_uring']);
    // Linux's older interface does for direct files what the present one does for all.
    if (aio !== undefined) this.#opening.aio = aio === 'native' ? 'auto' : aio;
    this.#takeSwitch(`${prefix}drop-cache`);
  }

  /** What the node of a file of a web server takes. */
  #takeWeb(prefix: string): void {
    const http: { -readonly [Key in keyof HttpOptions]: HttpOptions[Key] } = {};
    const readAhead = this.#takeNumber(`${prefix}readahead`);
    if (readAhead !== undefined) http.readAheadBytes = readAhead;
    const timeout = this.#takeNumber(`${prefix}timeout`);
    if (timeout !== undefined) http.timeoutSeconds = timeout;
    const verifies = this.#takeSwitch(`${prefix}sslverify`);
    if (verifies !== undefined) http.verifyCertificate = verifies;
    const username = this.#take(`${prefix}username`);
    if (username !== undefined) http.username = username;
    const cookie = this.#take(`${prefix}cookie`);
    if (cookie !== undefined) http.headers = { cookie };
    if (this.#take(`${prefix}password-secret`) !== undefined) {
      throw this.#cannot('a password by a secret object');
    }
    this.#opening.http = http;
  }

  /** What the format takes; options that it does not have are left. */
  #takeOwn(format: ImageFormat | undefined): void {
    const others = new Map<string, string>();
    for (const [name, value] of this.#values) {
      if (takesOption(format, name)) continue;
      others.set(name, value);
      this.#values.delete(name);
    }
    this.#takeTables();
    this.#takeBacking();
    this.#takeWindow();
    for (const [name, value] of others) this.#values.set(name, value);
  }

  #takeTables(): void {
    const lazy = this.#takeSwitch('lazy-refcounts');
    if (lazy !== undefined) this.#opening.lazyRefcounts = lazy;
    const sizes = ['cache-size', 'l2-cache-size'].map((name) => this.#takeNumber(name));
    for (const size of sizes) if (size !== undefined) this.#opening.cacheSize = size;
    for (const name of tuning) this.#takeNumber(name);
    for (const [name, wanted] of [
      ['pass-discard-request', true],
      ['pass-discard-snapshot', true],
      ['pass-discard-other', undefined],
      ['discard-no-unref', false],
    ] as const) {
      const value = this.#takeSwitch(name);
      if (!this.forWriting || value === undefined || wanted === undefined) continue;
      if (value !== wanted) throw this.#cannot(`${name}=${value ? 'on' : 'off'}`);
    }
    this.#takeOverlapCheck();
    this.#takeDriver('data-file.driver');
    this.#take('data-file.node-name');
    const dataFile = this.#take('data-file.filename');
    if (dataFile !== undefined) this.#opening.dataFile = dataFile;
  }

  #takeBacking(): void {
    const driver = this.#take('backing.driver');
    this.#takeDriver('backing.file.driver');
    this.#take('backing.node-name');
    this.#take('backing.file.node-name');
    const path = this.#take('backing.file.filename');
    if (path === undefined) {
      if (driver !== undefined) throw this.refuse(noFile);
      return;
    }
    this.#opening.backingFile = path;
    const format = this.#formatOf(driver);
    if (format !== undefined) this.#opening.backingFormat = format;
    const further = [...this.#values.keys()].find((name) => name.startsWith('backing.'));
    if (further !== undefined) throw this.#cannot(`the option '${further}'`);
  }

  #takeOverlapCheck(): void {
    const [value, other] = overlapNames.map((name) => this.#take(name));
    if (value !== undefined && other !== undefined && value !== other) {
      throw this.refuse(
        `Conflicting values for qcow2 options 'overlap-check' ('${value}') and 'overlap-check.template' ('${other}')`,
      );
    }
    const name = value ?? other;
    if (name === undefined) return;
    const level = overlapLevels.find((known) => known === name);
    if (level === undefined) {
      throw this.refuse(
        `Unsupported value '${name}' for qcow2 option 'overlap-check'. Allowed are any of the following: ${overlapLevels.join(', ')}`,
      );
    }
    this.#opening.overlapCheck = level;
  }

  /** A raw image that is a part of its file. */
  #takeWindow(): void {
    const offset = this.#takeNumber('offset');
    const size = this.#takeNumber('size');
    if (offset !== undefined || size !== undefined) this.#opening.window = { offset, size };
  }

  /** A driver of files; that of files of the host if none is said. */
  #takeDriver(name: string): string {
    const driver = this.#take(name) ?? fileDriverName;
    if (nameOption(driver) !== undefined) return driver;
    const filters = filterList().map((filter) => filter.name);
    throw this.refuse(
      `Unknown driver '${driver}'; files have ${driverNames().join(', ')}, and the filters are ${filters.join(', ')}`,
    );
  }

  #take(name: string): string | undefined {
    const value = this.#values.get(name);
    this.#values.delete(name);
    return value;
  }

  #takeSwitch(name: string): boolean | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    const truth = parseSwitch(value);
    if (truth === undefined) throw this.refuse(`Parameter '${name}' expects 'on' or 'off'`);
    return truth;
  }

  #takeOne<Value extends string>(name: string, values: readonly Value[]): Value | undefined {
    const value = this.#take(name);
    const known = values.find((each) => each === value);
    if (known === undefined && value !== undefined) {
      throw this.refuse(`Parameter '${name}' does not accept value '${value}'`);
    }
    return known;
  }

  #takeNumber(name: string): number | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    const size = parseSize(value);
    if (typeof size === 'bigint') return Number(size);
    throw this.refuse(`Parameter '${name}' expects a size`);
  }

  #cannot(what: string): CliError {
    return this.refuse(`${what} is not supported`);
  }
}

/** Whether a driver is one of files, or a filter of them. */
function isOfFiles(driver: string): boolean {
  return nameOption(driver) !== undefined || filterNamed(driver) !== undefined;
}

const noFile = 'A block device must be specified for "file"';
