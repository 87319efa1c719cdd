/**
 * What a filter is that users name: a file over a file, with options that are defined once, for their
 * types in programs, their values at a shell, what is refused, and the help.
 */
import { parseSize } from '../../size.js';
import type { StorageFile } from '../storage.js';

/** One option of a filter. */
export interface FilterOption<Given, Value> {
  /** One line of help. */
  readonly help: string;
  /** What stands for its value in help: `SIZE`. */
  readonly form: string;
  /** What a value should be, for who gave something else. */
  readonly expected: string;
  /** What a program's value means; undefined for none that is one. */
  readonly read: (given: Given | undefined) => Value | undefined;
  /** The value that a text at a shell stands for. */
  readonly parse: (text: string) => Value | undefined;
  /** Its name at a shell, where that is not the one in programs with dashes. */
  readonly shell?: string;
  /** The value of what is said in further options, `NAME.REST`, by what follows the dot. */
  readonly gather?: (values: ReadonlyMap<string, string>) => Value | undefined;
  /** Whether further options, `NAME.REST` or `NAME.N.REST`, are those of files, which it names. */
  readonly files?: 'one' | 'many';
}

/** Options of a filter, by their names in programs; at a shell `bpsTotal` is `bps-total`. */
export type FilterSchema = Readonly<Record<string, FilterOption<never, unknown>>>;

/** The values of options, as the filter gets them. */
export type ValuesOf<Schema extends FilterSchema, Required extends keyof Schema> = {
  readonly [Key in Required]: ValueOf<Schema[Key]>;
} & { readonly [Key in Exclude<keyof Schema, Required>]?: ValueOf<Schema[Key]> | undefined };

type ValueOf<Option> = Option extends FilterOption<never, infer Value> ? Value : never;
type GivenOf<Option> = Option extends FilterOption<infer Given, unknown> ? Given : never;

/** The use of a filter on one file; what other threads need of it too. */
export interface FilterUse<Values = unknown> {
  readonly name: string;
  readonly options: Values;
  /** Memory that all threads with the file open share, zero at first. */
  readonly words: Int32Array;
}

/** A filter that users name. */
export interface Filter<
  Name extends string,
  Schema extends FilterSchema,
  Required extends keyof Schema & string,
> {
  readonly name: Name;
  /** One line of help. */
  readonly help: string;
  readonly options: Schema;
  /** Options that may not be left out. */
  readonly required: readonly Required[];
  /** Words of shared memory that one use needs. */
  readonly words: number;
  /** What the file below is called in lists of options; `file` if left out. */
  readonly below?: string;
  /** Whether what lies below is an image, in whichever format its bytes tell, unless one is said. */
  readonly isOverImages?: boolean;
  /** Whether a name that is stored in an image, which may be anybody's, may have it with these options; default not. */
  isHarmless?(options: ValuesOf<Schema, Required>): boolean;
  /** What names begin with that have it over a file. */
  readonly prefix?: string;
  /** Options that such names can say; a file with others of them cannot be named in short. */
  readonly prefixSays?: readonly string[];
  /**
   * The options, and the file below, that follow the prefix in a name.
   *
   * @returns why that is no name, as a text
   */
  parseName?(rest: string): FilteredName | string;
  /**
   * The options as all threads get them, once what they refer to is read.
   *
   * @throws CowherdError naming the file that cannot be read
   */
  prepare?(options: ValuesOf<Schema, Required>): ValuesOf<Schema, Required>;
  /** What is wrong with options that are right one by one. @param spell the name of one, as it was given */
  problem?(
    options: ValuesOf<Schema, Required>,
    spell: (name: string) => string,
  ): string | undefined;
  /**
   * Puts the filter over a file, which it then owns.
   *
   * @param others the files that its options name, in that order, which it owns too
   * @throws CowherdError
   */
  wrap(
    inner: StorageFile,
    use: FilterUse<ValuesOf<Schema, Required>>,
    others?: readonly StorageFile[],
  ): StorageFile;
}

/** What a name says that begins with a filter's prefix. */
export interface FilteredName {
  readonly options: Readonly<Record<string, unknown>>;
  /** The name of what lies below. */
  readonly below: string;
}

/** What a program gives to have a filter. */
export type SettingsOf<Some> =
  Some extends Filter<infer Name, infer Schema, infer Required>
    ? { readonly name: Name } & { readonly [Key in Required]: GivenOf<Schema[Key]> } & {
        readonly [Key in Exclude<keyof Schema, Required>]?: GivenOf<Schema[Key]> | undefined;
      }
    : never;

/** The name of a filter, if that is enough to have it. */
export type NameAlone<Some> =
  Some extends Filter<infer Name, FilterSchema, infer Required>
    ? [Required] extends [never]
      ? Name
      : never
    : never;

/** A size in bytes within bounds, which count as allowed; a number, or a text with a suffix. */
export function size(
  help: string,
  from: number,
  to = Number.MAX_SAFE_INTEGER,
): FilterOption<number | string, number> {
  const within = (bytes: number): number | undefined =>
    Number.isSafeInteger(bytes) && bytes >= from && bytes <= to ? bytes : undefined;
  const parse = (text: string): number | undefined => {
    const bytes = parseSize(text);
    return typeof bytes === 'bigint' ? within(Number(bytes)) : undefined;
  };
  const range = to === Number.MAX_SAFE_INTEGER ? `of at least ${from}` : `from ${from} to ${to}`;
  return {
    help,
    form: 'SIZE',
    expected: `a size ${range} bytes`,
    read: (given) => {
      if (typeof given === 'string') return parse(given);
      return given === undefined ? undefined : within(given);
    },
    parse,
  };
}

/** A whole number of at least `from`. */
export function count(help: string, from: number): FilterOption<number, number> {
  const within = (value: number): number | undefined =>
    Number.isSafeInteger(value) && value >= from ? value : undefined;
  return {
    help,
    form: 'N',
    expected: `a whole number of at least ${from}`,
    read: (given) => (typeof given === 'number' ? within(given) : undefined),
    parse: (text) => (/^\d+$/.test(text) ? within(Number(text)) : undefined),
  };
}

/** One of some words. */
export function oneOf<Word extends string>(
  help: string,
  form: string,
  words: readonly Word[],
  expected = `one of ${words.join(', ')}`,
): FilterOption<Word, Word> {
  const known = (text: string | undefined): Word | undefined => words.find((word) => word === text);
  return { help, form, expected, read: known, parse: known };
}

/** Whether something is so; `on` or `off` at a shell. */
export function flag(help: string): FilterOption<boolean, boolean> {
  return {
    help,
    form: 'on|off',
    expected: 'true or false (on or off)',
    read: (given) => (typeof given === 'boolean' ? given : undefined),
    parse: (text) => (text === 'on' ? true : text === 'off' ? false : undefined),
  };
}

/** The name of a file. */
export function path(help: string): FilterOption<string, string> {
  const read = (given: string | undefined): string | undefined =>
    typeof given === 'string' && given !== '' && !given.includes('\0') ? given : undefined;
  return { help, form: 'FILE', expected: 'the name of a file', read, parse: read };
}

/** Names of further files, in a list. */
export function paths(help: string): FilterOption<readonly string[], readonly string[]> {
  const { read } = path('');
  return {
    help,
    form: 'FILE',
    expected: 'a list of names of files',
    read: (given) =>
      Array.isArray(given) && given.every((each) => read(each as string) !== undefined)
        ? given
        : undefined,
    parse: () => undefined,
    files: 'many',
  };
}

/** The name of a further file, which the filter opens. */
export function child(help: string): FilterOption<string, string> {
  return { ...path(help), files: 'one' };
}

/** Records in a list: at a shell each member is an option, `NAME.N.MEMBER`. */
export function records<Schema extends FilterSchema, Required extends keyof Schema & string>(
  help: string,
  schema: Schema,
  required: readonly Required[],
): FilterOption<readonly RecordOf<Schema, Required>[], readonly ValuesOf<Schema, Required>[]> {
  const members = schema as unknown as Readonly<Record<string, FilterOption<unknown, unknown>>>;
  const shells = new Map(Object.entries(members).map(([key, own]) => [own.shell ?? key, key]));
  const record = (given: unknown, isText: boolean): object | undefined => {
    if (typeof given !== 'object' || given === null) return undefined;
    const values: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(given)) {
      const key = isText ? shells.get(name) : name;
      if (key === undefined || !Object.hasOwn(members, key)) return undefined;
      if (value === undefined) continue;
      const read = isText ? members[key].parse(String(value)) : members[key].read(value);
      if (read === undefined) return undefined;
      values[key] = read;
    }
    return required.every((key) => values[key] !== undefined) ? values : undefined;
  };
  const list = (given: unknown, isText: boolean): never[] | undefined => {
    if (!Array.isArray(given)) return undefined;
    const read = given.map((each) => record(each, isText));
    return read.includes(undefined) ? undefined : (read as never[]);
  };
  const words = Object.entries(members).map(
    ([key, own]) => `${own.shell ?? key} (${own.expected})`,
  );
  return {
    help,
    form: '...',
    expected: `a list of records of ${words.join(', ')}, of which ${required.join(' and ')} may not be left out,`,
    read: (given) => list(given, false),
    parse: () => undefined,
    gather: (values) => list(listed(values), true),
  };
}

/** A record as programs give it. */
export type RecordOf<Schema extends FilterSchema, Required extends keyof Schema> = {
  readonly [Key in Required]: GivenOf<Schema[Key]>;
} & { readonly [Key in Exclude<keyof Schema, Required>]?: GivenOf<Schema[Key]> | undefined };

/** The records of options `N.MEMBER`, N counting from 0; undefined if there are others, or one is missing. */
function listed(values: ReadonlyMap<string, string>): object[] | undefined {
  const found = new Map<number, Record<string, string>>();
  for (const [name, value] of values) {
    const parts = /^(0|[1-9]\d{0,8})\.([^.]+)$/.exec(name);
    if (parts === null) return undefined;
    const at = Number(parts[1]);
    found.set(at, { ...found.get(at), [parts[2]]: value });
  }
  const list = Array.from({ length: found.size }, (_, at) => found.get(at));
  return list.includes(undefined) ? undefined : (list as object[]);
}
