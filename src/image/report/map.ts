/** How a guest range is stored, through the whole backing chain: the extents of `map`. */
import type { FormatImage, StoredExtent } from '../../format/driver.js';
import type { Extent } from '../api/reports.js';

/** One image of a chain, as far as `map` needs it. */
export interface ChainLink {
  /** Virtual size in bytes. */
  readonly size: number;
  readonly format: FormatImage;
  /** Where in its file the image begins, in bytes. */
  readonly start: number;
  readonly below: ChainLink | undefined;
}

/** Extents of a guest range, ascending; neighbours that are stored alike are joined. */
export async function* mapChain(
  top: ChainLink,
  offset: number,
  length: number,
  signal?: AbortSignal,
): AsyncGenerator<Extent> {
  let last: Extent | undefined;
  let failure: unknown;
  try {
    for await (const extent of extentsFrom(top, 0, offset, length, signal)) {
      if (last !== undefined && joins(last, extent)) {
        last = { ...last, length: last.length + extent.length };
      } else {
        if (last !== undefined) yield last;
        last = extent;
      }
    }
  } catch (error) {
    failure = error;
  }
  // What lies before a failure is known all the same.
  if (last !== undefined) yield last;
  if (failure !== undefined) throw failure as Error;
}

/** Whether all bytes of a mapping read as zeroes; not so if it cannot be had. */
export async function areKnownZero(extents: AsyncIterable<Extent>): Promise<boolean> {
  try {
    for await (const { zero } of extents) if (!zero) return false;
    return true;
  } catch {
    return false;
  }
}

async function* extentsFrom(
  link: ChainLink,
  depth: number,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Extent> {
  for await (const found of link.format.extents(offset, length, signal)) {
    const stored = withinFile(found, link.start);
    if (stored.present) {
      yield { ...stored, depth };
      continue;
    }
    const belowEnd = Math.min(stored.start + stored.length, link.below?.size ?? 0);
    const shown = Math.max(0, belowEnd - stored.start);
    if (link.below !== undefined && shown > 0) {
      yield* extentsFrom(link.below, depth + 1, stored.start, shown, signal);
    }
    if (shown < stored.length) {
      const { offset: hostOffset, filename } = stored;
      yield {
        ...(hostOffset !== undefined && { offset: hostOffset + shown }),
        ...(filename !== undefined && { filename }),
        start: stored.start + shown,
        length: stored.length - shown,
        depth,
        present: false,
        zero: true,
        data: false,
        compressed: false,
      };
    }
  }
}

/** An extent with the place that its file has for it. */
function withinFile(extent: StoredExtent, start: number): StoredExtent {
  return start === 0 || extent.offset === undefined
    ? extent
    : { ...extent, offset: start + extent.offset };
}

function joins(last: Extent, next: Extent): boolean {
  return (
    last.depth === next.depth &&
    last.present === next.present &&
    last.zero === next.zero &&
    last.data === next.data &&
    last.compressed === next.compressed &&
    last.filename === next.filename &&
    (last.offset === undefined
      ? next.offset === undefined
      : last.offset + last.length === next.offset)
  );
}
