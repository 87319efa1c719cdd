/** What a persistent bitmap that is to be kept in an image has to satisfy: QEMU's own bounds, in its words. */
import { bytesOfName } from '../../../byte-names.js';
import { type CowherdError, printable, problemWith } from '../../../errors.js';
import {
  maxBitmapBytes,
  maxBitmapDirectoryBytes,
  maxBitmapGranularityBits,
  maxBitmapNameBytes,
  maxBitmaps,
  minBitmapGranularityBits,
} from '../../../limits.js';
import type { NewBitmapFacts } from '../../driver.js';
import { bitmapClusters, bitmapEntryBytes } from '../contents/bitmaps.js';
import type { Qcow2Header } from '../layout/header.js';

/** Granularity of a bitmap of which none is said: a cluster, within these bounds, in bytes. */
const defaultGranularity = { least: 4096, most: 65536 };

/**
 * Looks whether a bitmap can be added to others.
 *
 * @returns its granularity in bits
 * @throws CowherdError saying why not
 */
export function checkNewBitmap(
  filename: string,
  header: Qcow2Header,
  others: readonly { readonly name: string }[],
  { name, granularity }: Pick<NewBitmapFacts, 'name' | 'granularity'>,
): number {
  const refuse = (why: string): never => {
    throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
  };
  if (name === '') refuse('Bitmap name cannot be empty');
  const { least, most } = defaultGranularity;
  const bytes = granularity ?? Math.min(most, Math.max(least, 2 ** header.clusterBits));
  const bits = Math.log2(bytes);
  if (!Number.isInteger(bits) || bits < minBitmapGranularityBits) {
    refuse('Granularity must be power of 2 and at least 512');
  }
  if (others.some((bitmap) => bitmap.name === name)) {
    const why = `Bitmap already exists: ${printable(name)}`;
    throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why);
  }
  const refuseToStore = (reason: string): never => {
    throw cannotStore(filename, reason);
  };
  if (header.version < 3) refuseToStore('Cannot store dirty bitmaps in qcow2 v2 files');
  if (bits > maxBitmapGranularityBits) {
    refuseToStore(`Granularity exceeds maximum (${2 ** maxBitmapGranularityBits} bytes)`);
  }
  checkBitmapSize(filename, bits, header);
  if (bytesOfName(name).length > maxBitmapNameBytes) {
    refuseToStore(`Name length exceeds maximum (${maxBitmapNameBytes} characters)`);
  }
  if (others.length >= maxBitmaps) {
    refuseToStore('Maximum number of persistent bitmaps is already reached');
  }
  const directoryBytes = others.reduce(
    (sum, bitmap) => sum + bitmapEntryBytes(bitmap.name),
    bitmapEntryBytes(name),
  );
  if (directoryBytes > maxBitmapDirectoryBytes) {
    refuseToStore('Not enough space in the bitmap directory');
  }
  return bits;
}

/** Refuses a bitmap that takes more than QEMU reads, and one of nothing, which has no table. */
export function checkBitmapSize(
  filename: string,
  granularityBits: number,
  { size, clusterBits }: Pick<Qcow2Header, 'size' | 'clusterBits'>,
): void {
  const clusterSize = 2 ** clusterBits;
  if (size === 0) throw cannotStore(filename, 'A disk of no size has nothing that could change');
  if (bitmapClusters(size, granularityBits, clusterSize) * clusterSize <= maxBitmapBytes) return;
  const why = 'Too much space will be occupied by the bitmap. Use larger granularity';
  throw cannotStore(filename, why);
}

/** Why a bitmap cannot be kept; `reason` is what QEMU says behind which bitmap and which image it is. */
function cannotStore(filename: string, reason: string): CowherdError {
  const operation = 'store bitmap';
  return problemWith('ERR_COWHERD_UNSUPPORTED', filename, reason, { operation, reason });
}
