/**
 * The geometry of a disk in a VHD's footer (Virtual Hard Disk Image Format Specification 1.0, "CHS
 * Calculation"), and the size that a program means that goes by it.
 */

/** Cylinders, heads and sectors of a track. */
export interface VhdGeometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectorsPerTrack: number;
}

/** Sectors of the largest geometry; a disk of more has this one all the same. */
export const maxGeometrySectors = 65535 * 16 * 255;
const mostSmallSectors = 65535 * 16 * 63;

/** The geometry that has no more than so many sectors, by the specification's steps. */
function geometryOf(sectors: number): VhdGeometry {
  const total = Math.min(sectors, maxGeometrySectors);
  let sectorsPerTrack = 255;
  let heads = 16;
  let tracks = Math.floor(total / sectorsPerTrack);
  if (total < mostSmallSectors) {
    sectorsPerTrack = 17;
    tracks = Math.floor(total / sectorsPerTrack);
    heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
    if (tracks >= heads * 1024 || heads > 16) {
      sectorsPerTrack = 31;
      heads = 16;
      tracks = Math.floor(total / sectorsPerTrack);
    }
    if (tracks >= heads * 1024) {
      sectorsPerTrack = 63;
      heads = 16;
      tracks = Math.floor(total / sectorsPerTrack);
    }
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectorsPerTrack };
}

/** Sectors of a disk of that geometry. */
export function sectorsOf({ cylinders, heads, sectorsPerTrack }: VhdGeometry): number {
  return cylinders * heads * sectorsPerTrack;
}

/** The smallest geometry that has at least so many sectors; of larger disks, the largest there is. */
export function geometryFor(sectors: number): VhdGeometry {
  for (let wanted = sectors; ; wanted++) {
    const geometry = geometryOf(wanted);
    if (sectorsOf(geometry) >= Math.min(sectors, maxGeometrySectors)) return geometry;
  }
}
