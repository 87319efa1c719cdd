/**
 * Reads lists of options as QEMU's block layer takes them, by the definitions that the formats, the
 * storages and the filters give of theirs. What can be carried out is, what changes nothing that can be seen
 * is taken, and the rest is refused.
 */
import { formatOpenOptions, takesChild } from '../../format/registry.js';
import {
  type NamedFilter,
  filterList,
  filterNamed,
  problemWithFilter,
  shellName,
} from '../../storage/filters/registry.js';
import { type OpenOption, parseOpenOption } from '../../storage/open-option.js';
import {
  driverNames,
  fileDriverName,
  fileOpenOptions,
  nameOfOptions,
  nameOption,
} from '../../storage/registry.js';
import type { OpenImageOptions } from '../api/options.js';
import type { ImageFormat } from '../api/reports.js';
import { commonOpenOptions } from './common-options.js';
import { defaultFormatName, formatByBytes, isReadableFormat } from './formats.js';

/** What a name may say of how an image is opened. */
export type NamedSettings = Pick<
  OpenImageOptions,
  | 'readOnly'
  | 'forceShare'
  | 'cache'
  | 'aio'
  | 'cacheSize'
  | 'detectZeroes'
  | 'discard'
  | 'lazyRefcounts'
  | 'overlapCheck'
  | 'http'
  | 'nbd'
  | 'null'
  | 'filters'
  | 'window'
  | 'encrypt'
  | 'dataFile'
  | 'backing'
  | 'backingFile'
  | 'backingFormat'
>;

/** What a name says of an image: in which file it is, and how that is opened. */
export interface ImageSpecification {
  /** The path or URL of its file. */
  readonly path: string;
  /** Undefined where the name does not say it. */
  readonly format: ImageFormat | undefined;
  readonly settings: NamedSettings;
}

/** How a list is read. */
export interface Reading {
  /** The error of a list that is refused. */
  readonly refuse: (why: string) => Error;
  readonly forWriting: boolean;
  readonly isStored: boolean;
  /** Whether what lies below is not opened: options of that mean nothing then. */
  readonly isAlone: boolean;
}

const noFile = 'A block device must be specified for "file"';

/** See the file's comment. */
export class OptionReader {
  readonly #values: Map<string, string>;
  readonly #reading: Reading;
  readonly #settings: Record<string, unknown> = {};

  /** @param values by QEMU's names, as texts */
  constructor(values: ReadonlyMap<string, string>, reading: Reading) {
    this.#values = new Map(values);
    this.#reading = reading;
  }

  /** @throws what the reading gives for a refusal */
  read(): ImageSpecification {
    const driver = this.#values.get('driver');
    // What is opened as a file alone is its bytes.
    const isFile = driver !== undefined && isOfFiles(driver);
    if (!isFile) this.#take('driver');
    const format = this.#formatOf(isFile ? defaultFormatName : driver);
    const prefix = this.#takeFilters(isFile ? '' : 'file.');
    const fileDriver = this.#takeDriver(`${prefix}driver`);
    const path =
      this.#take(`${prefix}${nameOption(fileDriver) ?? ''}`) ??
      nameOfOptions(fileDriver, (name) => this.#take(`${prefix}${name}`));
    if (path === undefined) {
      throw this.#refuse(isFile ? `The '${fileDriver}' block driver requires a file name` : noFile);
    }
    if (!isFile) this.#takeCommon('');
    this.#takeCommon(prefix);
    this.#takeAll(fileOpenOptions(fileDriver), prefix);
    if (!isFile) this.#takeOwn(format);
    this.#refuseRest(isFile ? driver : (format ?? formatByBytes(path)));
    if (this.#reading.forWriting && this.#settings['forceShare'] === true) {
      throw this.#refuse('force-share=on can only be used with read-only images');
    }
    return { path, format, settings: this.#settings };
  }

  #refuseRest(name: string): void {
    const unknown = [...this.#values.keys()].at(0);
    if (unknown === undefined) return;
    throw this.#refuse(`Block format '${name}' does not support the option '${unknown}'`);
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
      if (this.#reading.isStored) {
        throw this.#refuse(`the filter '${filter.name}' cannot be part of a name in an image`);
      }
      this.#take(`${below}driver`);
      this.#takeCommon(below);
      filters.push(this.#takeFilter(filter, below));
      below = `${below}file.`;
    }
    if (filters.length > 0) this.#settings['filters'] = filters;
    return below;
  }

  #takeFilter(filter: NamedFilter, prefix: string): unknown {
    const choice: Record<string, unknown> = { name: filter.name };
    for (const [key, { parse, expected }] of Object.entries(filter.options)) {
      const name = `${prefix}${shellName(key)}`;
      const text = this.#take(name);
      if (text === undefined) continue;
      const value = parse(text);
      if (value === undefined) throw this.#refuse(`Parameter '${name}' expects ${expected}`);
      choice[key] = value;
    }
    const isOwn = (name: string): boolean =>
      name.startsWith(prefix) && !name.slice(prefix.length).includes('.');
    const further = [...this.#values.keys()].find(isOwn);
    const unknown = further === undefined ? undefined : { [further.slice(prefix.length)]: '' };
    const problem = problemWithFilter({ ...choice, ...unknown }, shellName);
    if (problem !== undefined) throw this.#refuse(problem);
    return choice;
  }

  #formatOf(driver: string | undefined): ImageFormat | undefined {
    if (driver === undefined || isReadableFormat(driver)) return driver;
    throw this.#refuse(`Unknown driver '${driver}'`);
  }

  /** What every node takes. */
  #takeCommon(prefix: string): void {
    const { direct, unsafe, discard, detectZeroes, readOnly, forceShare } = this.#valuesOf(
      commonOpenOptions,
      prefix,
    );
    if (readOnly === true) this.#settings['readOnly'] = true;
    if (forceShare === true) this.#settings['forceShare'] = true;
    if (direct === true && unsafe === true) {
      throw this.#cannot('cache.direct=on together with cache.no-flush=on');
    }
    if (direct === true) this.#settings['cache'] = 'none';
    else if (unsafe === true) this.#settings['cache'] = 'unsafe';
    if (discard !== undefined) {
      this.#settings['discard'] = discard === 'unmap' || discard === 'on' ? 'unmap' : 'ignore';
    }
    if (detectZeroes === undefined) return;
    if (detectZeroes === 'unmap' && discard !== 'unmap' && discard !== 'on') {
      throw this.#refuse(
        'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
      );
    }
    this.#settings['detectZeroes'] = detectZeroes;
  }

  /** What the format takes; options that it does not have are left. */
  #takeOwn(format: ImageFormat | undefined): void {
    this.#takeAll(formatOpenOptions(format), '');
    if (takesChild(format, 'data-file')) this.#takeDataFile();
    if (takesChild(format, 'backing')) this.#takeBacking();
  }

  #takeDataFile(): void {
    const child = this.#takeChild('data-file');
    if (child === undefined) return;
    const { path, settings } = child.read();
    this.#settings['dataFile'] = path;
    const further = Object.keys(settings).at(0);
    if (further !== undefined) throw this.#cannot(`'${further}' of the data file`);
  }

  #takeBacking(): void {
    if (this.#values.get('backing') === '') {
      this.#take('backing');
      this.#settings['backing'] = 'ignore';
      return;
    }
    if (this.#reading.isAlone) return;
    const child = this.#takeChild('backing');
    if (child === undefined) return;
    const { path, format, settings } = child.read();
    const isPlain = Object.keys(settings).length === 0;
    this.#settings['backingFile'] = isPlain ? path : child.name;
    if (format !== undefined) this.#settings['backingFormat'] = format;
  }

  /** The options of another file or image of this one, if there are any: read, and as a name. */
  #takeChild(
    role: string,
  ): { readonly name: string; readonly read: () => ImageSpecification } | undefined {
    const prefix = `${role}.`;
    const values = new Map<string, string>();
    for (const [name, value] of this.#values) {
      if (!name.startsWith(prefix)) continue;
      values.set(name.slice(prefix.length), value);
      this.#values.delete(name);
    }
    if (values.size === 0) return undefined;
    // A data file has no format over it.
    if (role === 'data-file' && !values.has('driver')) values.set('driver', fileDriverName);
    const isNodeAlone = [...values.keys()].every((name) => name.endsWith('node-name'));
    if (isNodeAlone) return undefined;
    const reading = { ...this.#reading, forWriting: false };
    return {
      name: `json:${JSON.stringify(Object.fromEntries(values))}`,
      read: () => new OptionReader(values, reading).read(),
    };
  }

  /** Takes options, and sets what they mean. */
  #takeAll(options: readonly OpenOption[], prefix: string): void {
    const values = this.#valuesOf(options, prefix);
    for (const [key, value] of Object.entries(values)) {
      const [group, member] = key.split('.') as [string, string?];
      if (member === undefined) this.#settings[group] = value;
      else this.#settings[group] = { ...(this.#settings[group] as object), [member]: value };
    }
  }

  /** Takes options. @returns what is said by them, by their keys */
  #valuesOf(options: readonly OpenOption[], prefix: string): Record<string, unknown> {
    const values: Record<string, unknown> = {};
    for (const option of options) {
      const value = this.#valueOf(option, prefix);
      if (value !== undefined && option.key !== undefined) values[option.key] = value;
    }
    return values;
  }

  #valueOf(option: OpenOption, prefix: string): unknown {
    const { name, other, keeps, means } = option;
    const text = this.#take(`${prefix}${name}`);
    const otherText = other && this.#take(`${prefix}${other.name}`);
    const haveBoth = text !== undefined && otherText !== undefined;
    if (other !== undefined && haveBoth && text !== otherText) {
      throw this.#refuse(other.conflict(text, otherText));
    }
    const given = text ?? otherText;
    if (given === undefined) return undefined;
    const parsed = parseOpenOption(option, `${prefix}${name}`, given);
    if ('refused' in parsed) throw this.#refuse(parsed.refused);
    const { value } = parsed;
    if (this.#reading.forWriting && keeps !== undefined && !keeps.includes(value)) {
      throw this.#cannot(`${prefix}${name}=${given} of an image written to`);
    }
    return means === undefined ? value : means(value);
  }

  /** A driver of files; that of files of the host if none is said. */
  #takeDriver(name: string): string {
    const driver = this.#take(name) ?? fileDriverName;
    if (nameOption(driver) !== undefined) return driver;
    const filters = filterList().map((filter) => filter.name);
    throw this.#refuse(
      `Unknown driver '${driver}'; files have ${driverNames().join(', ')}, and the filters are ${filters.join(', ')}`,
    );
  }

  #take(name: string): string | undefined {
    const value = this.#values.get(name);
    this.#values.delete(name);
    return value;
  }

  #cannot(what: string): Error {
    return this.#refuse(`${what} is not supported`);
  }

  #refuse(why: string): Error {
    return this.#reading.refuse(why);
  }
}

/** Whether a driver is one of files, or a filter of them. */
function isOfFiles(driver: string): boolean {
  return nameOption(driver) !== undefined || filterNamed(driver) !== undefined;
}
