/** An image above another one, which takes what is written, and is gone at the end. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Image } from '../../image/api/image.js';
import { isUrl } from '../../image/api/path.js';
import type { OpenImageOptions } from '../../image/api/options.js';
import { createImage } from '../../image/graph/create.js';
import { overlayFormatName } from '../../image/names/formats.js';
import type { ImageName } from '../options/image-name.js';
import { CliError } from '../process/cli-error.js';
import { openNamed } from './open.js';

/** An overlay that is open. */
export interface TemporaryOverlay {
  readonly image: Image;
  /** Closes it, and removes its file. */
  close(): Promise<void>;
}

/**
 * Opens an overlay in the folder for temporary files. The image below is only read.
 *
 * @throws CliError for an image that is named by more than its path, or cannot be opened
 */
export async function openOverlay(
  name: ImageName,
  options: OpenImageOptions,
): Promise<TemporaryOverlay> {
  const { secrets, ...settings } = name.settings ?? {};
  if (Object.keys(settings).length > 0) {
    throw new CliError(
      `Could not open '${name.given}': a snapshot takes an image named by its path`,
    );
  }
  const base = await openNamed(name, { ...options, readOnly: true });
  const { format, size } = base;
  await base.close();
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-snapshot-'));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    const file = path.join(folder, 'overlay');
    const below = isUrl(name.path) ? name.path : path.resolve(name.path);
    const backing = { backingFile: below, backingFormat: format };
    await createImage(file, { format: overlayFormatName, size, ...backing });
    const overlay = {
      ...{ given: name.given, path: file, format: overlayFormatName },
      ...(secrets !== undefined && { settings: { secrets } }),
    };
    // Nobody looks for it after a crash.
    const image = await openNamed(overlay, { ...options, untrusted: false, cache: 'unsafe' });
    return { image, close: () => image.close().finally(remove) };
  } catch (error) {
    await remove();
    throw error;
  }
}
