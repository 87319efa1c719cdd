/** Opens images for commands, with failures worded as qemu-img words them. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import type { OpenImageOptions } from '../../image/api/options.js';
import { openImage } from '../../image/graph/open.js';
import { CliError } from '../process/cli-error.js';
import type { ImageName } from '../options/image-name.js';

/**
 * Opens an image.
 *
 * @throws CliError with the exit code if it cannot be opened
 */
export async function openNamed(
  name: ImageName,
  options: OpenImageOptions,
  exitCode = 1,
): Promise<Image> {
  try {
    return await openImage(name.path, { ...options, ...name.settings, format: name.format });
  } catch (error) {
    throw openFailure(name, error, exitCode);
  }
}

/** The failure to open an image, as it is reported. */
export function openFailure(name: ImageName, error: unknown, exitCode = 1): unknown {
  if (!(error instanceof CowherdError)) return error;
  return new CliError(withHint(`Could not open '${name.given}': ${reason(name, error)}`, error), {
    exitCode,
    cause: error,
  });
}

/** A message, and below it what can be done, where the error says so. */
function withHint(message: string, { hint }: CowherdError): string {
  return hint === undefined ? message : `${message}\n${hint}`;
}

/**
 * The reason alone: errors about an image's content begin with its name, which is in front already.
 * Errors about its file keep it, since they are those of a layer below.
 */
function reason({ path }: ImageName, error: CowherdError): string {
  const prefix = `Could not open '${path}': `;
  const isOfFile = error.message === `${prefix}${error.reason ?? ''}`;
  if (isOfFile || !error.message.startsWith(prefix)) return error.message;
  return error.message.slice(prefix.length);
}
