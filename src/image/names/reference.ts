/** Names by which an image refers to other files. */
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { hostPath } from '../../byte-names.js';
import { CowherdError, printable } from '../../errors.js';
import { isUrl } from '../../storage/registry.js';
import { nestedPrefix } from './option-reader.js';
import { isFilterName, isJsonName } from './specification.js';

/**
 * The name by which a backing file is opened that an image names: relative paths are relative to the image's
 * folder; those with `file:` in front, and `json:` names, to the working directory, as QEMU has it.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for names with a protocol that is not known
 */
export function resolveReference(image: string, name: string): string {
  if (isJsonName(name) || isFilterName(name)) return name;
  const path = withoutProtocol(image, name);
  // QEMU takes a name with a protocol as it is, a relative one from the working directory.
  if (path !== name) return path;
  // Put together as text, as QEMU does, so that names are reported as people wrote them.
  return isAbsolute(path) || isUrl(path) ? path : image.slice(0, image.lastIndexOf('/') + 1) + path;
}

/** Whether the name of a backing file is relative to the folder of the image that stands on it. */
export function isFromFolder(image: string, name: string): boolean {
  if (isJsonName(name) || isFilterName(name)) return false;
  return withoutProtocol(image, name) === name && !isAbsolute(name) && !isUrl(name);
}

/** What is told of a backing file: its path, or its name where that has a protocol. */
export function describeReference(image: string, name: string): string {
  return protocolOf(name) === undefined ? resolveReference(image, name) : name;
}

/**
 * Path of an external data file that an image names. Relative names are relative to the working
 * directory, as QEMU has it.
 *
 * @throws as `resolveReference`
 */
export function dataFilePath(image: string, name: string): string {
  return withoutProtocol(image, name);
}

/** The data file itself; one that is not in the working directory is taken from beside the image. */
export async function findDataFile(image: string, name: string): Promise<string> {
  const path = dataFilePath(image, name);
  if (await isThere(path)) return path;
  const beside = resolveReference(image, name);
  return (await isThere(beside)) ? beside : path;
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(hostPath(path)).catch(() => undefined)) !== undefined;
}

function protocolOf(name: string): string | undefined {
  return /^([a-z][a-z0-9+.-]*):/i.exec(name)?.[1].toLowerCase();
}

function withoutProtocol(image: string, name: string): string {
  const protocol = protocolOf(name);
  if (protocol === 'file') return name.slice('file:'.length);
  // What stands behind such a prefix is not looked at here, and may be anything.
  if (isUrl(name) && !name.startsWith(nestedPrefix)) return name;
  if (protocol !== undefined) {
    throw new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `'${image}' refers to '${printable(name)}': '${protocol}:' names are not supported`,
      { filename: image },
    );
  }
  return name;
}
