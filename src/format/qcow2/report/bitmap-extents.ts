/** What a persistent bitmap says of a guest range, as a stream of extents. */
import { type CowherdError, printable, problemWith } from '../../../errors.js';
import { maxBitmapTableEntries } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { BitmapExtent } from '../../driver.js';
import {
  bitmapClusterOffset,
  bitmapEntrySize,
  isAllOnes,
  isBitmapTable,
} from '../contents/bitmap-table.js';
import { type PersistentBitmap, readBitmaps } from '../contents/bitmaps.js';
import type { Qcow2Header } from '../layout/header.js';

/** Where bitmaps are read from. */
export interface BitmapSource {
  readonly file: StorageFile;
  readonly header: Qcow2Header;
  readonly signal: AbortSignal | undefined;
}

/** Finest and coarsest granularity that QEMU knows: 512 bytes, 2 GiB. */
const granularities = { least: 9, most: 31 };

/**
 * The extents of a guest range in a bitmap, ascending and covering it.
 *
 * @throws CowherdError ERR_COWHERD_NOT_FOUND, ERR_COWHERD_INVALID_IMAGE; ERR_COWHERD_UNSUPPORTED for a bitmap
 *   that was not closed, and so does not say what has changed
 */
export async function* bitmapExtents(
  source: BitmapSource,
  name: string,
  offset: number,
  length: number,
): AsyncGenerator<BitmapExtent> {
  const bitmap = await findBitmap(source, name);
  const granule = 2 ** bitmap.granularityBits;
  const clusterSize = 2 ** source.header.clusterBits;
  /** Guest bytes that one cluster of bits stands for. */
  const reach = clusterSize * 8 * granule;
  const end = offset + length;
  let last: { start: number; length: number; dirty: boolean } | undefined;
  for (let at = offset; at < end;) {
    source.signal?.throwIfAborted();
    const index = Math.floor(at / reach);
    const upTo = Math.min(end, (index + 1) * reach);
    for await (const run of runsOf(source, bitmap, index, at, upTo)) {
      if (last?.dirty === run.dirty) last.length += run.length;
      else {
        if (last !== undefined) yield last;
        last = run;
      }
    }
    at = upTo;
  }
  if (last !== undefined) yield last;
}

async function findBitmap({ file, header }: BitmapSource, name: string): Promise<PersistentBitmap> {
  const directory = await readBitmaps(file, header);
  const bitmap = directory?.bitmaps.find((each) => each.name === name);
  const problem = (code: CowherdError['code'], why: string): CowherdError =>
    problemWith(code, file.filename, `bitmap '${printable(name)}' ${why}`);
  if (bitmap === undefined) throw problem('ERR_COWHERD_NOT_FOUND', 'is not there');
  if (bitmap.inUse) {
    const why = 'was in use when the image was closed, and does not say what has changed';
    throw problem('ERR_COWHERD_UNSUPPORTED', why);
  }
  const { granularityBits, tableEntries, tableOffset } = bitmap;
  const clusterSize = 2 ** header.clusterBits;
  const needed = Math.ceil(header.size / (clusterSize * 8 * 2 ** granularityBits));
  const isKnown = granularityBits >= granularities.least && granularityBits <= granularities.most;
  const fits = tableEntries === needed && tableEntries <= maxBitmapTableEntries;
  if (!isKnown || !fits || tableOffset % clusterSize !== 0) {
    throw problem('ERR_COWHERD_INVALID_IMAGE', "doesn't satisfy the constraints");
  }
  return bitmap;
}

/** The runs of a range that one cluster of bits, or none, stands for. */
async function* runsOf(
  { file, header }: BitmapSource,
  { tableOffset, granularityBits }: PersistentBitmap,
  index: number,
  start: number,
  end: number,
): AsyncGenerator<{ start: number; length: number; dirty: boolean }> {
  const clusterSize = 2 ** header.clusterBits;
  const entry = new Uint8Array(bitmapEntrySize);
  await file.read(entry, tableOffset + index * bitmapEntrySize);
  const table = new DataView(entry.buffer);
  if (!isBitmapTable(table, clusterSize)) {
    throw problemWith('ERR_COWHERD_INVALID_IMAGE', file.filename, 'a table of a bitmap is damaged');
  }
  const hostOffset = bitmapClusterOffset(table, 0);
  if (hostOffset === 0) {
    yield { start, length: end - start, dirty: isAllOnes(table, 0) };
    return;
  }
  const granule = 2 ** granularityBits;
  const base = index * clusterSize * 8;
  const first = Math.floor(start / granule) - base;
  const last = Math.ceil(end / granule) - base;
  const firstByte = first >>> 3;
  const bytes = new Uint8Array(Math.ceil(last / 8) - firstByte);
  await file.read(bytes, hostOffset + firstByte);
  const isSet = (bit: number): boolean => (bytes[(bit >>> 3) - firstByte] & (1 << (bit & 7))) !== 0;
  let at = start;
  for (let bit = first; bit < last;) {
    const dirty = isSet(bit);
    const same = dirty ? 0xff : 0;
    bit += 1;
    while (bit < last && isSet(bit) === dirty) {
      // Eight at a time where they are alike.
      const isWhole = (bit & 7) === 0 && bit + 8 <= last;
      bit += isWhole && bytes[(bit >>> 3) - firstByte] === same ? 8 : 1;
    }
    const upTo = Math.min(end, (base + bit) * granule);
    yield { start: at, length: upTo - at, dirty };
    at = upTo;
  }
}
