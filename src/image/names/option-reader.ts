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
  filterOfName,
  isHarmless,
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
import type { FilterChoice, OpenImageOptions } from '../api/options.js';
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
  | 'caches'
  | 'detectZeroes'
  | 'discard'
  | 'lazyRefcounts'
  | 'locking'
  | 'overlapCheck'
  | 'http'
  | 'nbd'
  | 'null'
  | 'filters'
  | 'fullName'
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

/** What stands before the name of an image to name the file that its guest's bytes are. */
export const nestedPrefix = 'nested:';
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
    if (this.#reading.isStored) this.#refuseNested();
    const driver = this.#values.get('driver');
    // What is opened as a file alone is its bytes.
    const isFile = driver !== undefined && isOfFiles(driver);
    this.#moveFilename(filterNamed(driver));
    if (!isFile) this.#take('driver');
    const format = this.#formatOf(isFile ? defaultFormatName : driver);
    const { prefix, isOverImages } = this.#takeFilters(isFile ? '' : 'file.');
    const nested = this.#takeImage(prefix, isOverImages);
    const fileDriver = nested === undefined ? this.#takeDriver(`${prefix}driver`) : fileDriverName;
    const named =
      nested ??
      this.#take(`${prefix}${nameOption(fileDriver) ?? ''}`) ??
      nameOfOptions(fileDriver, (name) => this.#take(`${prefix}${name}`));
    if (named === undefined) {
      throw this.#refuse(isFile ? `The '${fileDriver}' block driver requires a file name` : noFile);
    }
    const path = nested ?? this.#takeFiltersOf(named);
    if (!isFile) this.#takeCommon('');
    if (nested === undefined) {
      this.#takeCommon(prefix);
      this.#takeAll(fileOpenOptions(fileDriver), prefix);
    }
    if (!isFile) this.#takeOwn(format);
    this.#refuseRest(isFile ? driver : (format ?? formatByBytes(path)));
    if (this.#reading.forWriting && this.#settings['forceShare'] === true) {
      throw this.#refuse('force-share=on can only be used with read-only images');
    }
    return { path, format, settings: this.#settings };
  }

  /** What stands behind such a prefix is not looked at here, and may be anything. */
  #refuseNested(): void {
    const found = [...this.#values.values()].find((value) => value.startsWith(nestedPrefix));
    if (found !== undefined) throw this.#cannot(`'${found}' in an image`);
  }

  /** Has the file that was named beside a list be that of what the outermost filter calls its own. */
  #moveFilename(filter: NamedFilter | undefined): void {
    const below = filter?.below ?? 'file';
    const name = this.#values.get('file.filename');
    if (filter?.prefix === undefined || name === undefined || below === 'file') return;
    this.#take('file.filename');
    const parsed = name.startsWith(filter.prefix)
      ? filter.parseName?.(name.slice(filter.prefix.length))
      : undefined;
    if (typeof parsed === 'string') throw this.#refuse(parsed);
    for (const [key, value] of Object.entries(parsed?.options ?? {})) {
      if (!this.#values.has(key)) this.#values.set(key, String(value));
    }
    const format = this.#values.get(`${below}.driver`);
    const isImage = format !== undefined && isReadableFormat(format);
    this.#values.set(`${below}.${isImage ? 'file.' : ''}filename`, parsed?.below ?? name);
  }

  #refuseRest(name: string): void {
    const unknown = [...this.#values.keys()].at(0);
    if (unknown === undefined) return;
    throw this.#refuse(`Block format '${name}' does not support the option '${unknown}'`);
  }

  /**
   * The filters over a file, from the outermost on; each has what is below it as its `file`, or what it calls so.
   *
   * @returns the prefix of the options of what is below all of them
   */
  #takeFilters(prefix: string): { readonly prefix: string; readonly isOverImages: boolean } {
    let below = prefix;
    let isOverImages = false;
    for (;;) {
      const filter = filterNamed(this.#values.get(`${below}driver`));
      if (filter === undefined) return { prefix: below, isOverImages };
      this.#take(`${below}driver`);
      this.#takeCommon(below);
      const own = `${below}${filter.below ?? 'file'}.`;
      this.#addFilter(filter, this.#takeFilter(filter, below, own));
      below = own;
      isOverImages = filter.isOverImages === true;
    }
  }

  /** The filters that a name begins with. @returns the name of what is below them */
  #takeFiltersOf(name: string): string {
    const filter = filterOfName(name);
    const parsed = filter?.parseName?.(name.slice(filter.prefix?.length));
    if (filter === undefined || parsed === undefined) return name;
    if (typeof parsed === 'string') throw this.#refuse(parsed);
    const choice = { name: filter.name, ...parsed.options };
    const problem = problemWithFilter(choice, shellName);
    if (problem !== undefined) throw this.#refuse(problem);
    this.#addFilter(filter, choice);
    const below = this.#takeFiltersOf(parsed.below);
    if (filter.isOverImages !== true) return below;
    return `${nestedPrefix}${jsonName(new Map([['file.filename', below]]))}`;
  }

  #addFilter(filter: NamedFilter, choice: unknown): void {
    if (this.#reading.isStored && !isHarmless(choice as FilterChoice)) {
      throw this.#refuse(`the filter '${filter.name}' cannot be part of a name in an image`);
    }
    const before = (this.#settings['filters'] ?? []) as readonly unknown[];
    this.#settings['filters'] = [...before, choice];
  }

  /**
   * An image of which the guest's bytes are the file of this one.
   *
   * @param prefix of its options
   * @param isProbed whether it is one though its driver is not said
   * @returns its name, or that of its file where it is no more than that; undefined if it is no image
   */
  #takeImage(prefix: string, isProbed: boolean): string | undefined {
    const driver = this.#values.get(`${prefix}driver`);
    const isOne = driver === undefined ? isProbed : isReadableFormat(driver);
    if (!isOne || prefix === '') return undefined;
    const { forWriting } = this.#reading;
    const child = this.#takeChild(prefix.slice(0, -1), forWriting, 'image');
    if (child === undefined) throw this.#refuse(noFile);
    const { path, format, settings } = child.read();
    if (format !== defaultFormatName || settings.window !== undefined) {
      return `${nestedPrefix}${child.name}`;
    }
    const { filters = [], ...others } = settings;
    const above = (this.#settings['filters'] ?? []) as readonly unknown[];
    Object.assign(this.#settings, { ...others, ...this.#settings });
    if (filters.length > 0) this.#settings['filters'] = [...above, ...filters];
    return path;
  }

  /** @param below the prefix of the options of what the filter is over */
  #takeFilter(filter: NamedFilter, prefix: string, below: string): unknown {
    const choice: Record<string, unknown> = { name: filter.name };
    for (const [key, option] of Object.entries(filter.options)) {
      const name = `${prefix}${option.shell ?? shellName(key)}`;
      const text = this.#take(name);
      const value = text === undefined ? this.#gathered(option, name, below) : option.parse(text);
      if (value === undefined && text === undefined) continue;
      if (value === undefined) throw this.#refuse(`Parameter '${name}' expects ${option.expected}`);
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

  /** The value of an option that is said by others, with its name in front; undefined if none is. */
  #gathered(option: NamedFilter['options'][string], name: string, below: string): unknown {
    const { gather, files, expected } = option;
    if (files === 'one') return this.#takeFileName(name, 'file');
    if (files === 'many') {
      const names: string[] = [];
      // What the filter is over may be the first of them.
      for (let at = 0; ; at++) {
        if (`${name}.${at}.` === below) continue;
        const file = this.#takeFileName(`${name}.${at}`, 'image');
        if (file === undefined) break;
        names.push(file);
      }
      return names.length > 0 ? names : undefined;
    }
    if (gather === undefined) return undefined;
    const values = this.#takeBelow(`${name}.`);
    if (values.size === 0) return undefined;
    const value = gather(values);
    if (value === undefined) throw this.#refuse(`Parameter '${name}' expects ${expected}`);
    return value;
  }

  /** The name of a file, or an image, by its options. @param kind what it is if that is not said */
  #takeFileName(role: string, kind: 'file' | 'image'): string | undefined {
    const child = this.#takeChild(role, this.#reading.forWriting, kind);
    if (child === undefined) return undefined;
    const { path, format, settings } = child.read();
    const isFile = format === defaultFormatName && Object.keys(settings).length === 0;
    return isFile ? path : `${nestedPrefix}${child.name}`;
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
    // A data file has no format over it.
    const name = this.#takeFileName('data-file', 'file');
    if (name !== undefined) this.#settings['dataFile'] = name;
  }

  #takeBacking(): void {
    if (this.#values.get('backing') === '') {
      this.#take('backing');
      this.#settings['backing'] = 'ignore';
      return;
    }
    if (this.#reading.isAlone) return;
    const child = this.#takeChild('backing', false, 'other');
    if (child === undefined) return;
    const { path, format, settings } = child.read();
    const isPlain = Object.keys(settings).length === 0;
    this.#settings['backingFile'] = isPlain ? path : child.name;
    if (format !== undefined) this.#settings['backingFormat'] = format;
  }

  /**
   * The options of another file or image of this one, if there are any: read, and as a name.
   *
   * @param kind what it is if that is not said: the bytes of a file, or an image in any format
   */
  #takeChild(
    role: string,
    forWriting: boolean,
    kind: 'file' | 'image' | 'other',
  ): { readonly name: string; readonly read: () => ImageSpecification } | undefined {
    const values = this.#takeBelow(`${role}.`);
    if (values.size === 0) return undefined;
    const isNodeAlone = [...values.keys()].every((name) => name.endsWith('node-name'));
    if (isNodeAlone) return undefined;
    const isUnsaid = !values.has('driver');
    if (isUnsaid && kind === 'file') values.set('driver', fileDriverName);
    for (const option of isUnsaid && kind === 'image' ? ['filename', 'url'] : []) {
      const value = values.get(option);
      values.delete(option);
      if (value !== undefined) values.set(`file.${option}`, value);
    }
    const reading = { ...this.#reading, forWriting };
    return { name: jsonName(values), read: () => new OptionReader(values, reading).read() };
  }

  /** Takes all options whose names begin so. @returns them without that */
  #takeBelow(prefix: string): Map<string, string> {
    const values = new Map<string, string>();
    for (const [name, value] of this.#values) {
      if (!name.startsWith(prefix)) continue;
      values.set(name.slice(prefix.length), value);
      this.#values.delete(name);
    }
    return values;
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

/** The name that options make together. */
function jsonName(values: ReadonlyMap<string, string>): string {
  return `json:${JSON.stringify(Object.fromEntries(values))}`;
}

/** Whether a driver is one of files, or a filter of them. */
function isOfFiles(driver: string): boolean {
  return nameOption(driver) !== undefined || filterNamed(driver) !== undefined;
}
