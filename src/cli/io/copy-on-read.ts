/** Copy on read: what an image does not hold itself is kept in it when it is read. */
import type { Image } from '../../image/api/image.js';
import type { Extent } from '../../image/api/reports.js';
import { hearEvent } from '../../image/graph/shown-image.js';
import { isFilledWith } from './buffers.js';

/** The event of a copy that is about to be written. */
const copyEvent = 'cor_write';
/** Bytes copied at a time. */
const pieceBytes = 1024 * 1024;
/** Of images that have no clusters. */
const usualUnit = 4096;

/**
 * Copies what lies below a range into the image, by the parts in which the image allocates. Nobody may write
 * to it meanwhile.
 *
 * @throws CowherdError
 */
export async function copyUp(image: Image, offset: number, length: number): Promise<void> {
  const { clusterSize = usualUnit, subclusterSize: unit = clusterSize } = await image.info();
  const start = Math.floor(offset / unit) * unit;
  const end = Math.min(Math.ceil((offset + length) / unit) * unit, image.size);
  if (length === 0) return;
  const missing: Extent[] = [];
  for await (const extent of image.map({ offset: start, length: end - start })) {
    if (!extent.present || extent.depth > 0) missing.push(extent);
  }
  for (const extent of missing) await copyExtent(image, extent);
}

async function copyExtent(image: Image, { start, length, zero }: Extent): Promise<void> {
  if (zero) {
    await hearEvent(image, copyEvent);
    await image.writeZeroes(start, length);
    return;
  }
  const buffer = Buffer.alloc(Math.min(length, pieceBytes));
  for (let at = 0; at < length; at += pieceBytes) {
    const bytes = buffer.subarray(0, Math.min(pieceBytes, length - at));
    await image.read(bytes, start + at);
    await hearEvent(image, copyEvent);
    if (isFilledWith(bytes, 0)) await image.writeZeroes(start + at, bytes.length);
    else await image.write(bytes, start + at);
  }
}
