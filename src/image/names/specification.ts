/**
 * What a name says of an image: in which file it is, and how that is opened. A path, a URL, a `json:` name and
 * a list of options such as `driver=qcow2,file.filename=NAME` all come to this.
 */
import { type CowherdError, cannotOpen } from '../../errors.js';
import { filterOfName, isSaidByPrefix } from '../../storage/filters/registry.js';
import { type ImageSpecification, OptionReader } from './option-reader.js';

export type { ImageSpecification, NamedSettings } from './option-reader.js';

/** Who reads a name, and what for. */
export interface NameUse {
  /** Whether the image is to be written to; default false. */
  readonly forWriting?: boolean;
  /** Whether the name is stored in an image, which may be anybody's: it puts no filters over files. */
  readonly isStored?: boolean;
  /** Whether the image is looked at by itself: what would lie below it is not to be named. */
  readonly isAlone?: boolean;
}

const jsonPrefix = 'json:';

/**
 * Understands a name.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT for a `json:` name that says nothing that can be done
 */
export function specificationOf(name: string, use: NameUse = {}): ImageSpecification {
  if (isFilterName(name)) {
    return specificationOfOptions(name, new Map([['file.filename', name]]), use);
  }
  if (!isJsonName(name)) return { path: name, format: undefined, settings: {} };
  return withFullName(readOptions(name, optionsOfJson(name), use), () => parsed(name));
}

/** The options of a `json:` name, as texts. @throws as `specificationOf` */
export function optionsOfJson(name: string): ReadonlyMap<string, string> {
  const options = jsonOptions(name);
  if (options === undefined) throw refusal(name, 'Could not parse the JSON options');
  const values = new Map<string, string>();
  for (const [option, value] of options) {
    if (typeof value === 'boolean') values.set(option, value ? 'on' : 'off');
    else if (typeof value === 'string' || typeof value === 'number') values.set(option, `${value}`);
    else if (value === null && option.endsWith('backing')) values.set(option, '');
    else throw refusal(name, `The option '${option}' of the name has no value that is understood`);
  }
  return values;
}

/**
 * Understands a list of options.
 *
 * @param given the list as it was given, for messages
 * @param values by QEMU's names, as texts
 * @throws ERR_COWHERD_INVALID_ARGUMENT for an option that is not known, or cannot be kept
 */
export function specificationOfOptions(
  given: string,
  values: ReadonlyMap<string, string>,
  use: NameUse = {},
): ImageSpecification {
  return withFullName(readOptions(given, values, use), () => nested(values));
}

function readOptions(
  given: string,
  values: ReadonlyMap<string, string>,
  { forWriting = false, isStored = false, isAlone = false }: NameUse,
): ImageSpecification {
  const refuse = (why: string): CowherdError => refusal(given, why);
  return new OptionReader(values, { refuse, forWriting, isStored, isAlone }).read();
}

/** With the name in full, where filters do what no shorter one says, or a secret is needed. */
function withFullName(specification: ImageSpecification, value: () => unknown): ImageSpecification {
  const { settings } = specification;
  const isShort = settings.filters?.every(isSaidByPrefix) !== false;
  if (isShort && settings.encrypt?.keySecret === undefined) return specification;
  const fullName = jsonPrefix + spaced(value());
  return { ...specification, settings: { ...settings, fullName } };
}

/** Options as the parts of one another that they are; those of lists by their numbers. */
function nested(values: ReadonlyMap<string, string>): Readonly<Record<string, unknown>> {
  const all: Record<string, unknown> = {};
  for (const [name, value] of values) {
    const path = name.split('.');
    const last = path.pop() ?? name;
    let part = all;
    for (const key of path) part = (part[key] ??= {}) as Record<string, unknown>;
    part[last] = value;
  }
  return all;
}

/** Whether a name begins with a filter over what follows. */
export function isFilterName(name: string): boolean {
  return filterOfName(name) !== undefined;
}

/** Whether a name is one of JSON options. */
export function isJsonName(name: string): boolean {
  return name.startsWith(jsonPrefix);
}

function refusal(given: string, why: string): CowherdError {
  return cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', given, why);
}

/**
 * The options of such a name, by their names with those they are part of in front: `file.filename`.
 *
 * @returns undefined for what is no JSON object
 */
function jsonOptions(name: string): ReadonlyMap<string, unknown> | undefined {
  try {
    const value = parsed(name);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? new Map(flattened(value, '')) : undefined;
  } catch {
    return undefined;
  }
}

function parsed(name: string): unknown {
  return JSON.parse(doubleQuoted(name.slice(jsonPrefix.length)));
}

/** JSON in one line, with the spaces that QEMU puts there. */
function spaced(value: unknown): string {
  return JSON.stringify(value, undefined, 1).replaceAll(/,\n */g, ', ').replaceAll(/\n */g, '');
}

/** JSON of which strings stood between single quotes too, as QEMU takes it, where shells make these easier. */
function doubleQuoted(text: string): string {
  return text.replace(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/gs, (literal) => {
    if (literal.startsWith('"')) return literal;
    const inner = literal.slice(1, -1).replace(/\\.|"/gs, (part) => {
      if (part === '"') return '\\"';
      return part === "\\'" ? "'" : part;
    });
    return `"${inner}"`;
  });
}

/** Options with the names of those they are part of in front, `file.filename`, and lists as `children.0`. */
function* flattened(value: unknown, name: string): Generator<[string, unknown]> {
  const isEmpty = typeof value === 'object' && value !== null && Object.keys(value).length === 0;
  if (typeof value !== 'object' || value === null || (isEmpty && name !== '')) {
    yield [name, value];
    return;
  }
  for (const [key, part] of Object.entries(value)) {
    yield* flattened(part, name === '' ? key : `${name}.${key}`);
  }
}
