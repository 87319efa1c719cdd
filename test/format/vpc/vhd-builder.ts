/** Makes VHD images by hand, which no tool here makes: fixed ones of other programs, and differencing ones. */

const sectorSize = 512;
const headerAt = 512;
const tableAt = 1536;
const locatorsAt = 4096;

/** What a footer says. */
export interface FooterFields {
  readonly creator: string;
  /** Bytes. */
  readonly currentSize: number | bigint;
  readonly geometry: readonly [cylinders: number, heads: number, sectors: number];
  readonly type: number;
}

/** Writes the complement of the sum of a structure's bytes into it. */
export function setChecksum(structure: Buffer, at: number): void {
  structure.writeUInt32BE(0, at);
  const sum = structure.reduce((total, byte) => total + byte, 0);
  structure.writeUInt32BE(~sum >>> 0, at);
}

/** A footer, whose header lies at byte 512 if the type has one. */
export function footerOf({ creator, currentSize, geometry, type }: FooterFields): Buffer {
  const footer = Buffer.alloc(512);
  footer.write('conectix', 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x00010000, 12);
  footer.writeBigUInt64BE(type === 2 ? 2n ** 64n - 1n : BigInt(headerAt), 16);
  footer.write(creator, 28, 4, 'latin1');
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(currentSize), 40);
  footer.writeBigUInt64BE(BigInt(currentSize), 48);
  footer.writeUInt16BE(geometry[0], 56);
  footer.writeUInt8(geometry[1], 58);
  footer.writeUInt8(geometry[2], 59);
  footer.writeUInt32BE(type, 60);
  setChecksum(footer, 64);
  return footer;
}

/** A block of a differencing image. */
export interface DifferingBlock {
  readonly index: number;
  /** All of the block; of sectors that are not present, whatever. */
  readonly data: Buffer;
  readonly isPresent: (sector: number) => boolean;
}

/** A parent's locator. */
export interface ParentLocator {
  /** Of four characters. */
  readonly code: string;
  readonly data: Buffer;
}

/** What a differencing image holds. */
export interface DifferencingImage {
  /** Bytes. */
  readonly size: number;
  /** Bytes; a power of two. */
  readonly blockSize: number;
  readonly blocks: readonly DifferingBlock[];
  readonly locators: readonly ParentLocator[];
  /** The parent's name, for people. */
  readonly parentName: string;
  /** Host offset of the table, in bytes. */
  readonly tableOffset?: number;
  /** The parent's unique id, of 16 bytes; zeroes by default. */
  readonly parentId?: Buffer;
}

/** The file of a differencing image. */
export function differencingImage(image: DifferencingImage): Buffer {
  const { size, blockSize, blocks, locators, parentName, tableOffset = tableAt } = image;
  const footer = footerOf({ creator: 'win ', currentSize: size, geometry: [1, 1, 1], type: 4 });
  const entries = Math.ceil(size / blockSize);
  const header = Buffer.alloc(1024);
  header.write('cxsparse', 'latin1');
  header.writeBigUInt64BE(2n ** 64n - 1n, 8);
  header.writeBigUInt64BE(BigInt(tableOffset), 16);
  header.writeUInt32BE(0x00010000, 24);
  header.writeUInt32BE(entries, 28);
  header.writeUInt32BE(blockSize, 32);
  image.parentId?.copy(header, 40);
  Buffer.from(parentName, 'utf16le').swap16().copy(header, 64);
  const front = Buffer.alloc(
    Math.ceil(Math.max(locatorsAt + 8 * 1024, tableOffset + entries * 4) / sectorSize) * sectorSize,
  );
  for (const [index, { code, data }] of locators.entries()) {
    const [at, place] = [576 + index * 24, locatorsAt + index * 1024];
    header.write(code, at, 'latin1');
    header.writeUInt32BE(1024, at + 4);
    header.writeUInt32BE(data.length, at + 8);
    header.writeBigUInt64BE(BigInt(place), at + 16);
    data.copy(front, place);
  }
  setChecksum(header, 36);
  footer.copy(front);
  header.copy(front, headerAt);
  front.fill(0xff, tableOffset, tableOffset + entries * 4);
  const parts: Buffer[] = [front];
  let end = front.length;
  for (const block of blocks) {
    const stored = storedBlock(block, blockSize);
    front.writeUInt32BE(end / sectorSize, tableOffset + block.index * 4);
    parts.push(stored);
    end += stored.length;
  }
  return Buffer.concat([...parts, footer]);
}

/** A block's bitmap, the first sector's bit the highest, and its data. */
function storedBlock({ data, isPresent }: DifferingBlock, blockSize: number): Buffer {
  const sectors = blockSize / sectorSize;
  const bitmap = Buffer.alloc(Math.ceil(sectors / 8 / sectorSize) * sectorSize);
  for (let sector = 0; sector < sectors; sector++) {
    if (isPresent(sector)) bitmap[sector >> 3] |= 0x80 >> (sector & 7);
  }
  return Buffer.concat([bitmap, data]);
}

/** What is read of the disk. @param below the parent's disk */
export function contentOf({ size, blockSize, blocks }: DifferencingImage, below: Buffer): Buffer {
  const content = Buffer.alloc(size);
  below.copy(content);
  for (const { index, data, isPresent } of blocks) {
    for (let sector = 0; sector < blockSize / sectorSize; sector++) {
      const at = sector * sectorSize;
      if (isPresent(sector)) data.copy(content, index * blockSize + at, at, at + sectorSize);
    }
  }
  return content;
}
