/**
 * What stands between the parts of a stream (Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse
 * Extents"): a sector before a table, the directory and the footer; a few bytes before a grain.
 */
import { sectorBytes } from './layout.js';
import { type NewHostedHeader, encodeHostedHeader } from './sparse-header.js';

const MarkerType = { end: 0, table: 1, directory: 2, footer: 3 } as const;

/** Bytes before a compressed grain: its first sector, and the length of what follows. */
export const grainMarkerBytes = 12;

/** A grain as it stands in a stream, in whole sectors. @param sector of the disk that it begins with */
export function encodeGrain(sector: number, compressed: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(wholeSectors(grainMarkerBytes + compressed.length));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(sector), true);
  view.setUint32(8, compressed.length, true);
  bytes.set(compressed, grainMarkerBytes);
  return bytes;
}

/** A grain table as it stands in a stream: what precedes it takes a sector. */
export function encodeTable(entries: Uint32Array): Uint8Array {
  return marked(MarkerType.table, bytesOf(entries));
}

/**
 * All that follows the last table: the directory, the footer, and the mark of the end.
 *
 * @param directory where the tables lie, in sectors
 * @param sector where this is written
 */
export function encodeStreamEnd(
  header: NewHostedHeader,
  directory: Uint32Array,
  sector: number,
): Uint8Array {
  const footer = encodeHostedHeader({ ...header, directoryAt: sector + 1 });
  return Buffer.concat([
    marked(MarkerType.directory, bytesOf(directory)),
    marked(MarkerType.footer, footer),
    new Uint8Array(sectorBytes),
  ]);
}

function marked(type: number, content: Uint8Array): Uint8Array {
  const length = wholeSectors(content.length);
  const bytes = new Uint8Array(sectorBytes + length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(length / sectorBytes), true);
  view.setUint32(12, type, true);
  bytes.set(content, sectorBytes);
  return bytes;
}

function bytesOf(entries: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(entries.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [index, entry] of entries.entries()) view.setUint32(index * 4, entry, true);
  return bytes;
}

/** Bytes in whole sectors. */
export function wholeSectors(length: number): number {
  return Math.ceil(length / sectorBytes) * sectorBytes;
}
