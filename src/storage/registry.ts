/** The protocols there are: the one list of them. A name without one is a path. */
import { CowherdError, problemWith } from '../errors.js';
import { fileProtocol } from './file/protocol.js';
import { type FilterChoice, attachFilter, isFiltered, withFilters } from './filters/registry.js';
import { WindowFile, isWindow } from './filters/window.js';
import { httpProtocol, httpsProtocol } from './http/protocol.js';
import { nbdProtocols } from './nbd/protocol.js';
import { nullProtocols } from './null/protocol.js';
import { ovaProtocol } from './ova/protocol.js';
import { hasPackedName } from './packed/packings.js';
import { packingOfFile, unpackFile } from './packed/unpacked.js';
import type { OpenOption } from './open-option.js';
import type { Protocol } from './protocol.js';
import { s3Protocol } from './s3/protocol.js';
import type {
  StorageCreateOptions,
  StorageFile,
  StorageHandle,
  StorageOpenOptions,
} from './storage.js';
import type { ByteStream } from './stream/byte-stream.js';
import { spool } from './stream/spooled-file.js';

export { locksFiles } from './file/open-file.js';

const protocols: Protocol[] = [
  fileProtocol,
  httpProtocol,
  httpsProtocol,
  s3Protocol,
  ovaProtocol,
  ...nbdProtocols,
  ...nullProtocols,
];

/** Adds a protocol, which is asked before those that are there already. */
export function registerProtocol(protocol: Protocol): void {
  protocols.unshift(protocol);
}

/** Whether a name begins as those of a protocol do, other than paths. */
export function isUrl(name: string): boolean {
  return protocolOf(name) !== fileProtocol;
}

/** QEMU's driver of files, which it assumes where none is said. */
export const fileDriverName = 'file';
/** QEMU's drivers of what lies in a file or on a device of the host. */
const fileDrivers: readonly string[] = [fileDriverName, 'host_device'];

/**
 * The option that names the file to QEMU's driver of a protocol.
 *
 * @returns undefined for what is no such driver, or not known
 */
export function nameOption(driver: string): 'filename' | 'url' | undefined {
  if (fileDrivers.includes(driver)) return 'filename';
  return protocols.some(({ name, isDriver }) => name === driver && isDriver !== false)
    ? 'url'
    : undefined;
}

/**
 * The name that options of a driver make together.
 *
 * @param take an option's value, if it is given
 * @returns undefined if they make none
 */
export function nameOfOptions(
  driver: string,
  take: (name: string) => string | undefined,
): string | undefined {
  return protocols.find(({ name }) => name === driver)?.nameOf?.(take);
}

/** The options that files of a driver are opened with; none for what is no such driver. */
export function fileOpenOptions(driver: string): readonly OpenOption[] {
  const name = fileDrivers.includes(driver) ? fileDriverName : driver;
  return protocols.find((each) => each.name === name)?.openOptions ?? [];
}

/** QEMU's names of the drivers of files. */
export function driverNames(): readonly string[] {
  const drivers = protocols.filter(({ isDriver }) => isDriver !== false);
  return [...new Set([...fileDrivers, ...drivers.map(({ name }) => name)])];
}

function protocolOf(name: string): Protocol {
  const lower = name.toLowerCase();
  const found = protocols.find(
    (each) => each !== fileProtocol && lower.startsWith(each.prefix ?? `${each.name}://`),
  );
  return found ?? fileProtocol;
}

/** How a file is to be opened, and what is put over it. */
export interface FilteredOpenOptions extends StorageOpenOptions {
  /** Outermost first. */
  readonly filters?: readonly FilterChoice[] | undefined;
}

/**
 * Opens a file, device, or whatever else a name names.
 *
 * @param name a path, or a URL of a protocol that is known
 * @throws CowherdError ERR_COWHERD_NOT_FOUND, ERR_COWHERD_ACCESS, ERR_COWHERD_LOCKED,
 *   ERR_COWHERD_UNSUPPORTED or ERR_COWHERD_IO
 */
export async function openStorageFile(
  name: string,
  options: FilteredOpenOptions = {},
): Promise<StorageFile> {
  const file = await openFiltered(name, options);
  const stream = await unpackedOf(file, name, options);
  return stream === undefined ? file : await spool(stream, { ...options, protocol: file.protocol });
}

async function openFiltered(
  name: string,
  { filters, ...opening }: FilteredOpenOptions,
): Promise<StorageFile> {
  const file = await protocolOf(name).open(name, opening, openStorageFile);
  if (filters === undefined) return file;
  return await withFilters(file, filters, (other) => openStorageFile(other, opening));
}

/**
 * What is packed in the file of a name, from its begin to its end.
 *
 * @param onBytes is given the bytes of the file itself, one after the other
 * @returns undefined if it is not packed
 * @throws CowherdError as `openStorageFile` does
 */
export async function openPackedStream(
  name: string,
  options: FilteredOpenOptions,
  onBytes?: (bytes: Uint8Array) => void,
): Promise<ByteStream | undefined> {
  if (options.unpack === false || !hasPackedName(name)) return undefined;
  const file = await openFiltered(name, options);
  const stream = await unpackedOf(file, name, options, onBytes);
  if (stream === undefined) await file.close();
  return stream;
}

/** @returns undefined if the file is not packed; else the stream owns it */
async function unpackedOf(
  file: StorageFile,
  name: string,
  { unpack = true }: StorageOpenOptions,
  onBytes?: (bytes: Uint8Array) => void,
): Promise<ByteStream | undefined> {
  if (!unpack || !hasPackedName(name)) return undefined;
  try {
    const packing = await packingOfFile(file);
    if (packing === undefined) return undefined;
    if (file.readOnly) return await unpackFile(file, packing, onBytes);
    const { filename } = file;
    throw new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `'${filename}' is packed (${packing.name}): it can only be read`,
      { filename },
    );
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}

/**
 * Creates a file, or empties one that nobody else has locked, and opens it for writing.
 *
 * @throws CowherdError as `openStorageFile` does
 */
export async function createStorageFile(
  name: string,
  options: StorageCreateOptions = {},
): Promise<StorageFile> {
  const protocol = protocolOf(name);
  if (protocol.create !== undefined) return await protocol.create(name, options);
  throw problemWith(
    'ERR_COWHERD_UNSUPPORTED',
    name,
    `Protocol driver '${protocol.name}' does not support image creation`,
  );
}

/** The open file of a handle, for this thread. */
export async function attachStorageFile(handle: StorageHandle): Promise<StorageFile> {
  if (isWindow(handle)) {
    return new WindowFile(await attachStorageFile(handle.whole), handle, handle.window);
  }
  if (isFiltered(handle)) return await attachFilter(handle, attachStorageFile);
  const protocol = protocols.find(({ name }) => name === handle.protocol);
  if (protocol?.attach !== undefined) return await protocol.attach(handle);
  const { filename } = handle;
  throw new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `Could not attach to '${filename}': there is no protocol '${handle.protocol}' on this thread`,
    { filename },
  );
}

/** A text that is the same for all names of one file. */
export function identifyFile(name: string): Promise<string> {
  return protocolOf(name).identify(name, identifyFile);
}
