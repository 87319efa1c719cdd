/** Formats by the names that callers and images give, and what is said of those that are not read. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { CowherdError, printable } from '../../errors.js';
import type { FormatCreation } from '../../format/create-options.js';
import type { FormatDriver } from '../../format/driver.js';
import type { Format } from '../../format/format.js';
import { probeBytes } from '../../format/probe.js';
import {
  defaultFormat,
  formatNamed,
  overlayFormat,
  recogniseFormat,
} from '../../format/registry.js';
import { nameOption } from '../../storage/registry.js';

export { formatNames, registerFormat } from '../../format/registry.js';
export type { CreateOption } from '../../format/create-options.js';

/** The format that a file has if it looks like no other. */
export const defaultFormatName = defaultFormat.name;

/** The format of an image that is to stand on any other one. */
export const overlayFormatName = overlayFormat.name;

/** Whether there is a format of that name that can be opened. */
export function isReadableFormat(name: string): boolean {
  return formatNamed(name)?.load !== undefined;
}

/**
 * The format that a name stands for where QEMU takes any driver, as in what images store of their backing files: its
 * drivers of files, such as `host_device`, mean disks that lie there as they are.
 */
export function formatByDriver<Name extends string | undefined>(
  name: Name,
): Name | typeof defaultFormatName {
  return name !== undefined && nameOption(name) !== undefined ? defaultFormatName : name;
}

/** Whether images of a format can be made. */
export function isCreatableFormat(name: string): boolean {
  return formatNamed(name)?.creation !== undefined;
}

/** Whether images of a format can hold compressed data. */
export function canCompress(name: string): boolean {
  return formatNamed(name)?.creation?.compresses === true;
}

/** The options of a new image of a format; none where none can be made. */
export function createOptionsOf(name: string): FormatCreation {
  return formatNamed(name)?.creation ?? { options: [] };
}

/** Whether the format of that name, if there is one, is recognised and not read. */
export function isForeignFormat(name: string): boolean {
  const format = formatNamed(name);
  return format !== undefined && format.load === undefined;
}

/**
 * The driver of a format.
 *
 * @throws ERR_COWHERD_UNKNOWN_FORMAT if there is none of that name, or it is not read
 */
export async function loadDriver(name: string, filename?: string): Promise<FormatDriver> {
  const format = formatNamed(name);
  if (format?.load !== undefined) return await format.load();
  throw new CowherdError('ERR_COWHERD_UNKNOWN_FORMAT', unknownFormat(name, format), { filename });
}

/** Why an image cannot be opened in a format that is not read, in QEMU's words where it has them. */
export function formatRefusal(name: string, path: string): string {
  const format = formatNamed(name);
  if (format !== undefined && recogniseFormat(firstBytes(path)) !== format) {
    return `Image not in ${format.title} format`;
  }
  return unknownFormat(name, format);
}

function unknownFormat(name: string, format: Format | undefined): string {
  return format === undefined
    ? `Unknown driver '${printable(name)}'`
    : `The ${name} format is not supported`;
}

/** The name of the format that a file's first bytes tell of. */
export function formatByBytes(path: string): string {
  return (recogniseFormat(firstBytes(path)) ?? defaultFormat).name;
}

/** The bytes that a file begins with, as far as it can be read. */
function firstBytes(path: string): Uint8Array {
  const bytes = new Uint8Array(probeBytes);
  try {
    const file = openSync(hostPath(path), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      return bytes.subarray(0, readSync(file, bytes));
    } finally {
      closeSync(file);
    }
  } catch {
    // What keeps it from being read is not what is asked.
    return bytes;
  }
}
