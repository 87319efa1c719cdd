/** Copy on read: what an image does not hold itself is kept in it when it is read. */
import type { Image } from '../../image/api/image.js';

/** Bytes copied at a time. */
const pieceBytes = 1024 * 1024;
/** Of images that have no clusters. */
const usualUnit = 4096;

/**
 * Copies what lies below a range, by whole clusters, into the image. Nobody may write to it meanwhile.
 *
 * @throws CowherdError
 */
export async function copyUp(image: Image, offset: number, length: number): Promise<void> {
  const unit = image.clusterSize ?? usualUnit;
  const start = Math.floor(offset / unit) * unit;
  const end = Math.min(Math.ceil((offset + length) / unit) * unit, image.size);
  if (end <= start) return;
  const missing: { readonly start: number; readonly length: number }[] = [];
  for await (const extent of image.map({ offset: start, length: end - start })) {
    if (!extent.present || extent.depth > 0) missing.push(extent);
  }
  for (const extent of missing) {
    const stop = extent.start + extent.length;
    for (let at = extent.start; at < stop; at += pieceBytes) {
      await copyPiece(image, at, Math.min(pieceBytes, stop - at));
    }
  }
}

async function copyPiece(image: Image, offset: number, length: number): Promise<void> {
  const bytes = Buffer.alloc(length);
  await image.read(bytes, offset);
  if (bytes.every((byte) => byte === 0)) await image.writeZeroes(offset, length);
  else await image.write(bytes, offset);
}
