/** Growing disks of Bochs by hand: no tool here makes them. */
import { pattern } from '../vmdk/builders.js';

const sector = 512;

/** Settings of an image. */
export interface BochsSettings {
  readonly version: 1 | 2;
  /** Bytes of an extent. */
  readonly extentBytes: number;
  /** Bytes of a bitmap, as the header says. */
  readonly bitmap: number;
  /** By extent, whether a sector is stored; nothing of those that are left out. */
  readonly extents: readonly (((sector: number) => boolean) | undefined)[];
  /** Bytes of the disk; that of the extents if left out. */
  readonly size?: number;
  /** Bytes before the catalog; 512 if left out. */
  readonly header?: number;
}

/** An image whose extents lie in the file in the opposite order, and its disk. */
export function bochs(settings: BochsSettings): { readonly bytes: Buffer; readonly disk: Buffer } {
  const { version, extentBytes, bitmap, extents, header: catalogAt = sector } = settings;
  const { size = extents.length * extentBytes } = settings;
  const header = Buffer.alloc(catalogAt);
  header.write('Bochs Virtual HD Image');
  header.write('Redolog', 32);
  header.write('Growing', 48);
  header.writeUInt32LE(version << 16, 64);
  [catalogAt, extents.length, bitmap, extentBytes].forEach((value, index) =>
    header.writeUInt32LE(value, 68 + index * 4),
  );
  header.writeBigUInt64LE(BigInt(size), version === 1 ? 84 : 88);
  const catalog = Buffer.alloc(extents.length * 4, 0xff);
  const disk = Buffer.alloc(extents.length * extentBytes);
  const parts: Buffer[] = [];
  const bitmapBytes = Math.ceil(bitmap / sector) * sector;
  for (let index = extents.length - 1; index >= 0; index -= 1) {
    const isStored = extents[index];
    if (isStored === undefined) continue;
    catalog.writeUInt32LE(parts.length, index * 4);
    const part = Buffer.alloc(bitmapBytes + extentBytes);
    // What is not stored is not zeroes in the file, so that it shows if it is read.
    part.fill(0xcc, bitmapBytes);
    for (let each = 0; each < extentBytes / sector; each += 1) {
      if (!isStored(each)) continue;
      part[each >> 3] |= 1 << (each & 7);
      const content = pattern(index * 100_000 + each, sector);
      content.copy(part, bitmapBytes + each * sector);
      content.copy(disk, index * extentBytes + each * sector);
    }
    parts.push(part);
  }
  return { bytes: Buffer.concat([header, catalog, ...parts]), disk: disk.subarray(0, size) };
}
