/** Cutting a disk into the pieces that convert copies, from the extents of its source. */
import type { DataSegment } from '../image/graph/data-copy.js';
import type { SourceExtent } from './host-holes.js';

/** Bytes zeroed at a time, so that progress and cancelling stay lively. */
const zeroBytes = 1024 * 1024 * 1024;

/** A piece of the disk, and what is to be done with it. */
export interface Piece {
  readonly kind: 'data' | 'zero' | 'skip';
  /** Guest offset in bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Of data: what it is made of, where that lies as it is. */
  readonly segments?: readonly DataSegment[] | undefined;
}

/** How extents become pieces. */
export interface CutRule {
  /** Pieces of data begin and end at multiples of this many bytes, or at the disk's end. */
  readonly granularity: number;
  /** Bytes of a piece of data at most; a multiple of the granularity. */
  readonly chunkBytes: number;
  /** Bytes of the disk. */
  readonly size: number;
  /**
   * Whether what the source shows of its own backing file is left to the target's. What it holds
   * nowhere, having no backing file or a shorter one, is zeroes like any others.
   */
  readonly leaveBacking: boolean;
  /** Whether zeroes are copied like data. */
  readonly copyZeroes: boolean;
}

/** The pieces of a disk, ascending and covering it; where one is part data, it is data. */
export async function* cutPieces(
  extents: AsyncIterable<SourceExtent>,
  rule: CutRule,
): AsyncGenerator<Piece> {
  let next = 0;
  for await (const extent of extents) {
    const kind = kindOf(extent, rule);
    const { granularity, size } = rule;
    const extentEnd = extent.start + extent.length;
    const start = Math.max(next, extent.start);
    // Data takes the whole granules it touches; other kinds leave a shared one to the data.
    const end =
      kind === 'data'
        ? Math.min(size, Math.ceil(extentEnd / granularity) * granularity)
        : extentEnd;
    if (kind === 'data') {
      const from = Math.max(next, Math.floor(start / granularity) * granularity);
      for (const piece of cut('data', from, end, rule.chunkBytes)) {
        yield { ...piece, segments: segmentsOf(piece, extent) };
      }
      next = Math.max(next, end);
    } else if (end > start) {
      const stop = end === size ? end : Math.floor(end / granularity) * granularity;
      if (stop > start) {
        yield* cut(kind, start, stop, zeroBytes);
        next = stop;
      }
      if (stop < end && Math.max(stop, start) < end) {
        // What is left shares its granule with the next extent, whose kind is not known yet.
        const from = Math.max(stop, start);
        const granuleEnd = Math.min(size, Math.ceil(end / granularity) * granularity);
        yield* cut('data', from, granuleEnd, rule.chunkBytes);
        next = granuleEnd;
      }
    }
  }
}

/** What a piece is made of, if all of it lies within one extent whose place is known. */
function segmentsOf({ start, length }: Piece, extent: SourceExtent): DataSegment[] | undefined {
  const within = start - extent.start;
  if (within < 0 || within + length > extent.length) return undefined;
  const { bytes, zero } = extent;
  if (bytes === undefined) return zero ? [{ bytes, length }] : undefined;
  return [{ bytes: { ...bytes, offset: bytes.offset + within }, length }];
}

function kindOf(extent: SourceExtent, rule: CutRule): Piece['kind'] {
  if (rule.leaveBacking && extent.depth > 0) return 'skip';
  if (extent.zero && !extent.data) return rule.copyZeroes ? 'data' : 'zero';
  return extent.zero && !rule.copyZeroes ? 'zero' : 'data';
}

function* cut(kind: Piece['kind'], start: number, end: number, most: number): Generator<Piece> {
  for (let from = start; from < end;) {
    // Ends at multiples, so that one unaligned begin does not make every piece unaligned.
    const to = Math.min(end, (Math.floor(from / most) + 1) * most);
    yield { kind, start: from, length: to - from };
    from = to;
  }
}
