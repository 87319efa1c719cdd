/** Makes disk images with a FAT16 file system (Microsoft's FAT specification, 2000), no tool needed. */
import { open } from 'node:fs/promises';

const sectorSize = 512;
const reservedSectors = 1;
const fatCount = 2;
const rootEntries = 512;
const entrySize = 32;
const endOfChain = 0xffff;

/** A file to be put into the root folder. */
export interface DiskFile {
  /** At most eight letters and digits, a dot, and three more; capitals. */
  readonly name: string;
  readonly source: string;
}

/** Where things lie, in sectors. */
interface FatLayout {
  readonly sectors: number;
  readonly sectorsPerCluster: number;
  readonly fatSectors: number;
  readonly rootStart: number;
  readonly dataStart: number;
}

/**
 * Writes a sparse disk image whose root folder holds the files.
 *
 * @param size bytes, from 32 MiB to 2 GiB
 */
export async function makeFatDisk(
  path: string,
  size: number,
  files: readonly DiskFile[],
): Promise<void> {
  const layout = planFat(size);
  const clusterBytes = layout.sectorsPerCluster * sectorSize;
  const fat = new Uint16Array((layout.fatSectors * sectorSize) / 2);
  fat.set([0xfff8, endOfChain]);
  const root = Buffer.alloc(rootEntries * entrySize);
  let next = 2;
  const disk = await open(path, 'w+');
  try {
    await disk.truncate(size);
    for (const [index, file] of files.entries()) {
      const content = await open(file.source);
      const { size: length } = await content.stat();
      const clusters = Math.ceil(length / clusterBytes);
      const at = layout.dataStart * sectorSize + (next - 2) * clusterBytes;
      const buffer = Buffer.alloc(1 << 20);
      for (let done = 0; done < length;) {
        const { bytesRead } = await content.read(buffer, 0, buffer.length, done);
        await disk.write(buffer, 0, bytesRead, at + done);
        done += bytesRead;
      }
      await content.close();
      writeEntry(root, index, file.name, clusters > 0 ? next : 0, length);
      for (let cluster = next; cluster < next + clusters; cluster++) {
        fat[cluster] = cluster + 1 === next + clusters ? endOfChain : cluster + 1;
      }
      next += clusters;
    }
    const table = new Uint8Array(fat.buffer);
    await disk.write(bootSector(layout), 0, sectorSize, 0);
    for (let copy = 0; copy < fatCount; copy++) {
      const start = reservedSectors + copy * layout.fatSectors;
      await disk.write(table, 0, table.length, start * sectorSize);
    }
    await disk.write(root, 0, root.length, layout.rootStart * sectorSize);
  } finally {
    await disk.close();
  }
}

function planFat(size: number): FatLayout {
  const sectors = Math.floor(size / sectorSize);
  let sectorsPerCluster = 4;
  while (sectors / sectorsPerCluster > 65_000) sectorsPerCluster *= 2;
  const fatSectors = Math.ceil((sectors / sectorsPerCluster + 2) / (sectorSize / 2));
  const rootStart = reservedSectors + fatCount * fatSectors;
  const dataStart = rootStart + (rootEntries * entrySize) / sectorSize;
  return { sectors, sectorsPerCluster, fatSectors, rootStart, dataStart };
}

function bootSector(layout: FatLayout): Buffer {
  const sector = Buffer.alloc(sectorSize);
  sector.set([0xeb, 0x3c, 0x90]);
  sector.write('COWHERD ', 3, 'latin1');
  sector.writeUInt16LE(sectorSize, 11);
  sector.writeUInt8(layout.sectorsPerCluster, 13);
  sector.writeUInt16LE(reservedSectors, 14);
  sector.writeUInt8(fatCount, 16);
  sector.writeUInt16LE(rootEntries, 17);
  sector.writeUInt8(0xf8, 21);
  sector.writeUInt16LE(layout.fatSectors, 22);
  sector.writeUInt16LE(63, 24);
  sector.writeUInt16LE(255, 26);
  sector.writeUInt32LE(layout.sectors, 32);
  sector.writeUInt8(0x80, 36);
  sector.writeUInt8(0x29, 38);
  sector.writeUInt32LE(0x20260101, 39);
  sector.write('COWHERD    FAT16   ', 43, 'latin1');
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

function writeEntry(
  root: Buffer,
  index: number,
  name: string,
  cluster: number,
  size: number,
): void {
  const at = index * entrySize;
  const [base = '', extension = ''] = name.split('.');
  root.write(base.padEnd(8) + extension.padEnd(3), at, 'latin1');
  root.writeUInt8(0x20, at + 11);
  // 1 January 2026
  root.writeUInt16LE(((2026 - 1980) << 9) | (1 << 5) | 1, at + 24);
  root.writeUInt16LE(cluster, at + 26);
  root.writeUInt32LE(size, at + 28);
}
