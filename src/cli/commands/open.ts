/** Opens images for commands, with failures worded as qemu-img words them. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import type { OpenImageOptions } from '../../image/api/options.js';
import { openImage } from '../../image/graph/open.js';
import { CliError } from '../process/cli-error.js';
import type { Session } from '../process/session.js';
import { openingText } from '../text/failures.js';
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

/** Tells what the repair of an image that was not closed cleanly finds and does, as it is opened for writing. */
export function tellingFindings(session: Session): Required<Pick<OpenImageOptions, 'onFinding'>> {
  return {
    onFinding: ({ message }) => {
      session.complain(`${message}\n`);
    },
  };
}

/** The failure to open an image, as it is reported. */
function openFailure(name: ImageName, error: unknown, exitCode: number): unknown {
  if (!(error instanceof CowherdError)) return error;
  return new CliError(openingText(name, error), { exitCode, cause: error });
}
