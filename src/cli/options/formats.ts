/** Formats as command lines name them: those that are known, and what is said of the others. */
import type { ImageFormat } from '../../image/api/reports.js';
import { isCreatableFormat, isForeignFormat, isReadableFormat } from '../../image/names/formats.js';
import { CliError } from '../process/cli-error.js';

/** Formats that QEMU itself can only read. */
const readOnlyFormats = ['vvfat'];

/**
 * The format of an image that is to be made.
 *
 * @throws CliError for a format in which none can be made
 */
export function creatableFormat(name: string): ImageFormat {
  if (isCreatableFormat(name)) return name;
  if (isReadableFormat(name) || readOnlyFormats.includes(name)) {
    throw new CliError(`Format driver '${name}' does not support image creation`);
  }
  if (isForeignFormat(name)) throw new CliError(`The ${name} format is not supported`);
  throw new CliError(`Unknown file format '${name}'`);
}
