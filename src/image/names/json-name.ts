/** Names of files as QEMU's `json:` has them, as far as its drivers are known here. */
import { fileDriverName, nameOption } from '../../storage/registry.js';
import type { ImageFormat } from '../api/reports.js';
import { defaultFormatName, isReadableFormat } from './formats.js';

export {
  type NamedFilter,
  filterList,
  filterNamed,
  problemWithFilter,
  shellName,
} from '../../storage/filters/registry.js';
export { driverNames, fileDriverName, nameOption } from '../../storage/registry.js';

/** A file that such a name names. */
export interface NamedFile {
  readonly path: string;
  /** Undefined where it is to be probed. */
  readonly format: ImageFormat | undefined;
}

/**
 * The file that a name is of: one of the formats that are read, or none said, that lies in a file, on a
 * device or on a web server, with no other option.
 *
 * @param name with `json:` in front
 * @returns undefined for any other name
 */
export function parseJsonName(name: string): NamedFile | undefined {
  const options = jsonOptions(name);
  if (options === undefined) return undefined;
  const driver = options.get('driver');
  const isProtocol = typeof driver === 'string' && nameOption(driver) !== undefined;
  const prefix = isProtocol ? '' : 'file.';
  const fileDriver = options.get(`${prefix}driver`) ?? fileDriverName;
  if (typeof fileDriver !== 'string') return undefined;
  const pathKey = `${prefix}${nameOption(fileDriver) ?? ''}`;
  const path = options.get(pathKey);
  const known = ['driver', `${prefix}driver`, pathKey];
  if (typeof path !== 'string' || [...options.keys()].some((key) => !known.includes(key))) {
    return undefined;
  }
  // What is opened as a file alone is its bytes.
  if (isProtocol) return { path, format: defaultFormatName };
  if (driver === undefined) return { path, format: undefined };
  if (typeof driver !== 'string' || !isReadableFormat(driver)) return undefined;
  return { path, format: driver };
}

/**
 * The options of such a name, by their names with those they are part of in front: `file.filename`.
 *
 * @returns undefined for what is no JSON object
 */
export function jsonOptions(name: string): ReadonlyMap<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(name.slice('json:'.length));
    return typeof value === 'object' ? new Map(flattened(value, '')) : undefined;
  } catch {
    return undefined;
  }
}

/** Options with the names of those they are part of in front, `file.filename`, as QEMU takes them too. */
function* flattened(value: unknown, name: string): Generator<[string, unknown]> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    yield [name, value];
    return;
  }
  for (const [key, part] of Object.entries(value)) {
    yield* flattened(part, name === '' ? key : `${name}.${key}`);
  }
}
