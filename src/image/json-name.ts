/** Names of files as QEMU's `json:` has them, as far as its drivers are known here. */
import type { ImageFormat } from './api.js';

/** A file that such a name names. */
export interface NamedFile {
  readonly path: string;
  /** Undefined where it is to be probed. */
  readonly format: ImageFormat | undefined;
}

/** QEMU's drivers of what lies in a file or on a device. */
export const protocols: readonly string[] = ['file', 'host_device'];

/**
 * The file that a name is of: one of the formats qcow2 or raw, or none said, that lies in a file or on
 * a device, with no other option.
 *
 * @param name with `json:` in front
 * @returns undefined for any other name
 */
export function parseJsonName(name: string): NamedFile | undefined {
  let options: ReadonlyMap<string, unknown>;
  try {
    options = new Map(flattened(JSON.parse(name.slice('json:'.length)), ''));
  } catch {
    return undefined;
  }
  const driver = options.get('driver');
  const isProtocol = protocols.some((each) => each === driver);
  const [pathKey, driverKey] = isProtocol
    ? ['filename', 'driver']
    : ['file.filename', 'file.driver'];
  const path = options.get(pathKey);
  const known = ['driver', driverKey, pathKey];
  if (typeof path !== 'string' || [...options.keys()].some((key) => !known.includes(key))) {
    return undefined;
  }
  if (![undefined, ...protocols].some((each) => each === options.get(driverKey))) return undefined;
  // What is opened as a file alone is its bytes.
  if (isProtocol) return { path, format: 'raw' };
  if (driver !== undefined && driver !== 'qcow2' && driver !== 'raw') return undefined;
  return { path, format: driver };
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
