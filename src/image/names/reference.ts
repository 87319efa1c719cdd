/** Names by which an image refers to other files. */
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { hostPath } from '../../byte-names.js';
import { CowherdError, printable } from '../../errors.js';
import { isUrl } from '../../storage/registry.js';
import type { ImageFormat } from '../api/reports.js';
import { type NamedFile, parseJsonName } from './json-name.js';

/**
 * Path of a backing file that an image names: relative names are relative to the image's folder, but in
 * `json:` names to the working directory, as QEMU has it.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for names with a protocol, and `json:` names of other than a file
 */
export function resolveReference(image: string, name: string): string {
  const named = fileInJson(name);
  if (named !== undefined) return named.path;
  const path = withoutProtocol(image, name);
  // Put together as text, as QEMU does, so that names are reported as people wrote them.
  return isAbsolute(path) || isUrl(path) ? path : image.slice(0, image.lastIndexOf('/') + 1) + path;
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

/** The data file itself; one that is not in the working directory is looked for beside the image. */
export async function findDataFile(image: string, name: string): Promise<string> {
  const path = dataFilePath(image, name);
  const found = await stat(hostPath(path)).catch(() => undefined);
  return found === undefined ? resolveReference(image, name) : path;
}

/** The format that the name itself says a backing file has. */
export function formatInReference(name: string): ImageFormat | undefined {
  return fileInJson(name)?.format;
}

function fileInJson(name: string): NamedFile | undefined {
  return protocolOf(name) === 'json' ? parseJsonName(name) : undefined;
}

function protocolOf(name: string): string | undefined {
  return /^([a-z][a-z0-9+.-]*):/i.exec(name)?.[1].toLowerCase();
}

function withoutProtocol(image: string, name: string): string {
  const protocol = protocolOf(name);
  if (protocol === 'file') return name.slice('file:'.length);
  if (isUrl(name)) return name;
  if (protocol !== undefined) {
    throw new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `'${image}' refers to '${printable(name)}': '${protocol}:' names are not supported`,
      { filename: image },
    );
  }
  return name;
}
