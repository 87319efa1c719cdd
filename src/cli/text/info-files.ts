/** The files that `info` tells of: an image's own, and those that it is spread over. */
import type { ChildFileInfo, ImageInfo } from '../../image/api/reports.js';

/** QEMU does not open it to describe an image. */
const untold = 'data-file';

/** Every file as a child of the image, under its name and in the order in which QEMU has them. */
export function toldFiles(info: ImageInfo): readonly ChildFileInfo[] {
  const { filename, fileLength, actualSize, blockDevice, protocol } = info;
  const others = info.children.filter(({ role }) => role !== untold);
  return [
    ...others.reverse(),
    { role: 'file', filename, fileLength, actualSize, blockDevice, protocol },
  ];
}

/** Bytes that all of them occupy, where that is known. */
export function occupiedBytes(info: ImageInfo): number | undefined {
  let bytes = 0;
  for (const { actualSize } of toldFiles(info)) {
    if (actualSize === undefined) return undefined;
    bytes += actualSize;
  }
  return bytes;
}
