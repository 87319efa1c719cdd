/** The filters that users name: the one list of them. */
import { problemWith } from '../../errors.js';
import type { StorageFile, StorageHandle } from '../storage.js';
import { blkdebugFilter } from './blkdebug/blkdebug.js';
import { blkverifyFilter } from './copies/blkverify.js';
import { quorumFilter } from './copies/quorum.js';
import { faultFilter } from './fault.js';
import type { FilteredName, FilterOption, FilterUse, NameAlone, SettingsOf } from './filter.js';
import type { FilterHandle } from './filter-file.js';
import { preallocateFilter } from './preallocate.js';
import { rateFilter } from './rate.js';
import { readaheadFilter } from './readahead.js';
import { throttleFilter } from './throttle.js';
import { traceFilter } from './trace.js';

const filters = [
  traceFilter,
  faultFilter,
  rateFilter,
  readaheadFilter,
  throttleFilter,
  blkdebugFilter,
  blkverifyFilter,
  quorumFilter,
  preallocateFilter,
] as const;
type Some = (typeof filters)[number];

/** A filter with its options; some are named alone. */
export type FilterChoice = SettingsOf<Some> | NameAlone<Some>;

/** A filter as whoever reads its name and options needs it. */
export interface NamedFilter {
  readonly name: string;
  readonly help: string;
  readonly options: Readonly<Record<string, FilterOption<unknown, unknown>>>;
  readonly required: readonly string[];
  readonly words: number;
  readonly below?: string;
  readonly isOverImages?: boolean;
  readonly prefix?: string;
  readonly prefixSays?: readonly string[];
  problem?(options: object, spell: (name: string) => string): string | undefined;
  isHarmless?(options: object): boolean;
  parseName?(rest: string): FilteredName | string;
  prepare?(options: object): object;
  wrap(inner: StorageFile, use: FilterUse, others?: readonly StorageFile[]): StorageFile;
}

// What each takes is checked by its own options before it gets them.
const named = filters as readonly unknown[] as readonly NamedFilter[];

/** The filter of a name; undefined if there is none. */
export function filterNamed(name: unknown): NamedFilter | undefined {
  return named.find((each) => each.name === name);
}

/** The filter over a file that a name begins with; undefined if it begins with none. */
export function filterOfName(name: string): NamedFilter | undefined {
  return named.find(({ prefix }) => prefix !== undefined && name.startsWith(prefix));
}

/** All filters, for help. */
export function filterList(): readonly NamedFilter[] {
  return named;
}

/** Whether a name that is stored in an image may have a choice, which is one. */
export function isHarmless(choice: FilterChoice): boolean {
  const read = readChoice(choice, (name) => name);
  return typeof read !== 'string' && read.filter.isHarmless?.(read.values) === true;
}

/** Whether a name that begins with the filter's prefix says all of a choice. */
export function isSaidByPrefix(choice: FilterChoice): boolean {
  const { name, ...options } = typeof choice === 'string' ? { name: choice } : choice;
  const says = filterNamed(name)?.prefixSays;
  return says !== undefined && Object.keys(options).every((option) => says.includes(option));
}

/** An option's name at a shell: `bps-total` for `bpsTotal`. */
export function shellName(option: string): string {
  return option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/**
 * Why a choice is none, in a line that names what there is; undefined if it is one.
 *
 * @param spell the name of an option where the choice was made
 */
export function problemWithFilter(
  choice: unknown,
  spell: (name: string) => string = (name) => name,
): string | undefined {
  const read = readChoice(choice, spell);
  return typeof read === 'string' ? read : undefined;
}

/** A filter, and the values of its options. */
interface ReadChoice {
  readonly filter: NamedFilter;
  readonly values: object;
}

function readChoice(choice: unknown, spell: (name: string) => string): ReadChoice | string {
  const given: unknown = typeof choice === 'string' ? { name: choice } : choice;
  if (typeof given !== 'object' || given === null) {
    return `a filter is its name, or an object with it; ${thereAre()}`;
  }
  const { name, ...options } = given as Readonly<Record<string, unknown>>;
  const filter = filterNamed(name);
  if (filter === undefined) return `there is no filter '${String(name)}'; ${thereAre()}`;
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(filter.options, key)) {
      const known = joined(Object.keys(filter.options).map(spell));
      return `the filter '${filter.name}' has no option '${spell(key)}'; it has ${known}`;
    }
    if (value === undefined) continue;
    const option = filter.options[key];
    values[key] = option.read(value);
    if (values[key] === undefined) {
      return `${spell(key)} of the filter '${filter.name}': ${option.expected} is expected`;
    }
  }
  const missing = filter.required.find((key) => values[key] === undefined);
  if (missing !== undefined) return `the filter '${filter.name}' needs ${spell(missing)}`;
  const problem = filter.problem?.(values, spell);
  return problem === undefined ? { filter, values } : `the filter '${filter.name}': ${problem}`;
}

function thereAre(): string {
  return `there are ${joined(named.map(({ name }) => name))}`;
}

function joined(names: readonly string[]): string {
  return `${names.slice(0, -1).join(', ')}${names.length > 1 ? ' and ' : ''}${names.at(-1) ?? ''}`;
}

/**
 * Puts filters over a file, which the outermost then owns; the file is closed if that fails.
 *
 * @param choices outermost first
 * @param openOther opens further files, by the names that options say
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT for what is no choice, or what a filter throws
 */
export async function withFilters(
  file: StorageFile,
  choices: readonly FilterChoice[],
  openOther: (name: string) => Promise<StorageFile>,
): Promise<StorageFile> {
  let outermost = file;
  const others: StorageFile[] = [];
  try {
    for (const choice of choices.toReversed()) {
      const read = readChoice(choice, (name) => name);
      if (typeof read === 'string') {
        const { filename } = file;
        throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, read);
      }
      const { filter, values } = read;
      const options = filter.prepare?.(values) ?? values;
      const words = new Int32Array(new SharedArrayBuffer(4 * filter.words));
      for (const name of filesNamed(filter, values)) others.push(await openOther(name));
      outermost = filter.wrap(outermost, { name: filter.name, options, words }, [...others]);
      others.length = 0;
    }
    return outermost;
  } catch (error) {
    for (const opened of [outermost, ...others]) await opened.close().catch(() => undefined);
    throw error;
  }
}

/** The further files that options of a filter name, in the order of the options. */
function filesNamed(filter: NamedFilter, values: object): readonly string[] {
  const read = values as Readonly<Record<string, string | readonly string[] | undefined>>;
  const keys = Object.entries(filter.options).filter(([, { files }]) => files !== undefined);
  return keys.flatMap(([key]) => read[key] ?? []);
}

/** Whether a handle is that of a filtered file. */
export function isFiltered(handle: StorageHandle): handle is FilterHandle {
  return 'inner' in handle && 'filter' in handle;
}

/** Puts the filter of a handle over the files of those below, attached; these are closed if that fails. */
export async function attachFilter(
  { filter, inner, others }: FilterHandle,
  attach: (handle: StorageHandle) => Promise<StorageFile>,
): Promise<StorageFile> {
  const attached: StorageFile[] = [];
  try {
    for (const handle of [inner, ...others]) attached.push(await attach(handle));
    const [below, ...further] = attached as [StorageFile, ...StorageFile[]];
    return filterNamed(filter.name)!.wrap(below, filter, further);
  } catch (error) {
    for (const file of attached) await file.close().catch(() => undefined);
    throw error;
  }
}
