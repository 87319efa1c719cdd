/** Bitmaps that tell which sectors of a block are present (VHD and VHDX). */

/** Which bit of a byte is the first sector's: the highest in VHD, the lowest in VHDX. */
export type BitOrder = 'highest first' | 'lowest first';

/** Sectors, one after the other, of which the same is said. */
export interface SectorRun {
  readonly isPresent: boolean;
  /** At least 1. */
  readonly sectors: number;
}

/**
 * The run that a sector begins.
 *
 * @param bitmap from the byte of the sector on
 * @param sector which of that byte's sectors, 0 to 7
 * @param most sectors that are asked for, at least 1
 */
export function sectorRun(
  bitmap: DataView,
  sector: number,
  most: number,
  order: BitOrder,
): SectorRun {
  const flip = order === 'highest first' ? 7 : 0;
  const bit = (at: number): number => (bitmap.getUint8(at >>> 3) >>> ((at & 7) ^ flip)) & 1;
  const first = bit(sector);
  const same = first === 1 ? 0xff : 0;
  const end = Math.min(sector + most, bitmap.byteLength * 8);
  let at = sector + 1;
  while (at < end) {
    if ((at & 7) === 0 && bitmap.getUint8(at >>> 3) === same) at += 8;
    else if (bit(at) === first) at++;
    else break;
  }
  return { isPresent: first === 1, sectors: Math.min(at, end) - sector };
}
