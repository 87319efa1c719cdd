/** The filters that users name: the one list of them. */
import { problemWith } from '../../errors.js';
import type { StorageFile, StorageHandle } from '../storage.js';
import { faultFilter } from './fault.js';
import type { FilterOption, FilterUse, NameAlone, SettingsOf } from './filter.js';
import type { FilterHandle } from './filter-file.js';
import { rateFilter } from './rate.js';
import { readaheadFilter } from './readahead.js';
import { throttleFilter } from './throttle.js';
import { traceFilter } from './trace.js';

const filters = [traceFilter, faultFilter, rateFilter, readaheadFilter, throttleFilter] as const;
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
  problem?(options: object, spell: (name: string) => string): string | undefined;
  wrap(inner: StorageFile, use: FilterUse): StorageFile;
}

// What each takes is checked by its own options before it gets them.
const named = filters as readonly unknown[] as readonly NamedFilter[];

/** The filter of a name; undefined if there is none. */
export function filterNamed(name: unknown): NamedFilter | undefined {
  return named.find((each) => each.name === name);
}

/** All filters, for help. */
export function filterList(): readonly NamedFilter[] {
  return named;
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
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT for what is no choice, or what a filter throws
 */
export async function withFilters(
  file: StorageFile,
  choices: readonly FilterChoice[],
): Promise<StorageFile> {
  let outermost = file;
  try {
    for (const choice of choices.toReversed()) {
      const read = readChoice(choice, (name) => name);
      if (typeof read === 'string') {
        const { filename } = file;
        throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, read);
      }
      const { filter, values: options } = read;
      const words = new Int32Array(new SharedArrayBuffer(4 * filter.words));
      outermost = filter.wrap(outermost, { name: filter.name, options, words });
    }
    return outermost;
  } catch (error) {
    await outermost.close().catch(() => undefined);
    throw error;
  }
}

/** Whether a handle is that of a filtered file. */
export function isFiltered(handle: StorageHandle): handle is FilterHandle {
  return 'inner' in handle && 'filter' in handle;
}

/** Puts the filter of a handle over the attached file of the one below, which is closed if that fails. */
export async function attachFilter(
  { filter }: FilterHandle,
  inner: StorageFile,
): Promise<StorageFile> {
  try {
    return filterNamed(filter.name)!.wrap(inner, filter);
  } catch (error) {
    await inner.close().catch(() => undefined);
    throw error;
  }
}
