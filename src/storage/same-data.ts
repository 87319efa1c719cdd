/** Comparing data that lie in files of the host, without their passing through JavaScript where it can. */
import { FilePosix } from './file/file-posix.js';
import type { CopySegment } from './storage.js';

/**
 * Whether segments, one after the other, hold the same bytes as others.
 *
 * @param length bytes of either
 * @returns undefined where that has to be found by reading them
 */
export async function haveSameData(
  segments: readonly CopySegment[],
  others: readonly CopySegment[],
  length: number,
): Promise<boolean | undefined> {
  const files = [...segments, ...others]
    .map(({ file }) => file)
    .filter((file) => file !== undefined);
  const [first] = files;
  if (!(first instanceof FilePosix) || !files.every((file) => file instanceof FilePosix)) {
    return undefined;
  }
  try {
    return await first.hasSameData(segments, others, length);
  } catch {
    // Whoever reads them meets the same, and can tell where.
    return undefined;
  }
}
