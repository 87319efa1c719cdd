/** What images of a chain hold themselves, and which image they name as the one below. */
import { problemWith } from '../../errors.js';
import type { AbortSignalLike } from '../../abort-signal.js';
import type { BackingChange, BackingReference } from '../../format/driver.js';
import type { Image } from '../api/image.js';
import type { Extent } from '../api/reports.js';
import type { BaseWork, IsWritten } from './above-base.js';
import { OpenedImage } from './opened-image.js';

export type { BackingReference } from '../../format/driver.js';

/**
 * How the disk is stored in an image and those below it.
 *
 * @param count how many images of the chain, of which each but the last stands on the next
 */
export function extentsOfLayers(
  image: Image,
  count: number,
  signal: AbortSignalLike | undefined,
): AsyncIterable<Extent> {
  return opened(image).layers(count, signal);
}

/**
 * Gives up all that an image holds, durably, so that what lies below it shows; it is only closed after that. Images
 * of formats that cannot give up clusters keep what they hold.
 */
export async function emptyImage(image: Image): Promise<void> {
  const { format, node, openQueue } = opened(image).disk;
  if ((await format.empty?.()) === true) return;
  const { queue, close } = openQueue();
  try {
    const { clusterSize = 1 } = format;
    await queue.forget?.(0, Math.ceil(node.size / clusterSize) * clusterSize);
    await queue.flush();
  } finally {
    await close();
  }
}

/** See `aboveBase`. */
export function workAboveBase(
  image: Image,
  isWritten: IsWritten,
  signal: AbortSignalLike | undefined,
  work: BaseWork,
): Promise<void> {
  return opened(image).aboveBase(isWritten, signal, work);
}

/** Bytes, aligned to as much, that are in an image as a whole or not at all. */
export function granuleOf(image: Image): number {
  const { granule, clusterSize = 1 } = opened(image).disk.format;
  return granule ?? clusterSize;
}

/** Whether zeroes that were written into an image hide whatever lies below it; else they have to be data. */
export function zeroesHide(image: Image): boolean {
  return opened(image).disk.format.backingChange?.zeroesHide === true;
}

/** Looks whether an image can name another one as that below it, or none. @throws CowherdError saying why not */
export async function checkBackingName(
  image: Image,
  backing: BackingReference | undefined,
): Promise<void> {
  await backingChangeOf(image).check(backing);
}

/** Has an image name another one below it, durably, or none; it is only closed after that. */
export async function nameBacking(
  image: Image,
  backing: BackingReference | undefined,
): Promise<void> {
  const change = backingChangeOf(image);
  await opened(image).disk.node.runAlone(() => change.write(backing));
}

/** @throws ERR_COWHERD_UNSUPPORTED for an image that cannot name another one */
function backingChangeOf(image: Image): BackingChange {
  const { format, filename } = opened(image).disk;
  if (format.backingChange !== undefined) return format.backingChange;
  throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, 'Operation not supported', {
    operation: 'name backing',
  });
}

function opened(image: Image): OpenedImage {
  if (image instanceof OpenedImage) return image;
  throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', image.filename, 'the image is of another kind');
}
