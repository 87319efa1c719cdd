/** Names by which an image refers to other files. */
import { dirname, isAbsolute, join } from 'node:path';
import { CowherdError } from '../errors.js';

/**
 * Path of a file that an image names: relative names are relative to the image's folder.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for `json:` names and names with a protocol
 */
export function resolveReference(image: string, name: string): string {
  const protocol = /^([a-z][a-z0-9+.-]*):/i.exec(name)?.[1]?.toLowerCase();
  if (protocol === 'file') return resolveReference(image, name.slice('file:'.length));
  if (protocol !== undefined) {
    throw new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `'${image}' refers to '${name}': '${protocol}:' names are not supported`,
      { filename: image },
    );
  }
  return isAbsolute(name) ? name : join(dirname(image), name);
}
