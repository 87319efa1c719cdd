/** Formats as command lines name them: those that are known, and what is said of the others. */
import type { ImageFormat } from '../image/api.js';
import { isForeignFormat } from '../image/formats.js';
import { CliError } from './cli-error.js';

/** Formats that QEMU itself can only read. */
const readOnlyFormats = ['bochs', 'cloop', 'dmg', 'vvfat'];

/** Whether a format of that name is known. */
export function isImageFormat(name: string): name is ImageFormat {
  return name === 'raw' || name === 'qcow2';
}

/**
 * The format of an image that is to be made.
 *
 * @throws CliError for a format in which none can be made
 */
export function creatableFormat(name: string): ImageFormat {
  if (isImageFormat(name)) return name;
  if (readOnlyFormats.includes(name)) {
    throw new CliError(`Format driver '${name}' does not support image creation`);
  }
  if (isForeignFormat(name)) throw new CliError(`The ${name} format is not supported`);
  throw new CliError(`Unknown file format '${name}'`);
}
