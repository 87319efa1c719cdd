/**
 * Gathering pieces into windows that are copied where they lie: pieces of data and the zeroes between them,
 * so that what a copy costs beside its bytes is not spent on every extent of a scattered source.
 */
import type { DataSegment } from '../image/graph/data-copy.js';
import type { Piece } from './copy-pieces.js';

/** A piece, or a window of several. */
export interface Step {
  readonly kind: Piece['kind'] | 'copy';
  /** Guest offset in bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Bytes of it that count as data. */
  readonly dataBytes: number;
  /** The same in the portions that are told one after the other. */
  readonly portions: readonly number[];
  /** Of a window: what it is made of. */
  readonly segments: readonly DataSegment[];
}

/** What can be a window. */
export interface WindowRule {
  /** Windows lie within multiples of this many bytes, a power of two. */
  readonly windowBytes: number;
  /** Bytes whose data are told of at once, a power of two. */
  readonly portionBytes: number;
  /** Bytes: windows begin and end at multiples of it, or at the end of the disk. */
  readonly granule: number;
  /** Bytes of the disk. */
  readonly size: number;
}

/** A piece as a step of its own. */
export function stepOf({ kind, start, length }: Piece): Step {
  const portions = kind === 'data' ? [length] : [];
  return { kind, start, length, dataBytes: kind === 'data' ? length : 0, portions, segments: [] };
}

/** The same disk as steps; what cannot be part of a window stays as it is. */
export async function* gatherWindows(
  pieces: AsyncIterable<Piece>,
  rule: WindowRule,
): AsyncGenerator<Step> {
  const { windowBytes, size } = rule;
  const windowEnd = (offset: number): number =>
    Math.min(size, (Math.floor(offset / windowBytes) + 1) * windowBytes);
  let gathered: Piece[] = [];
  for await (const piece of pieces) {
    const end = piece.start + piece.length;
    for (let start = piece.start; start < end;) {
      let stop = Math.min(end, windowEnd(start));
      if (gathered.length === 0 && piece.kind !== 'data' && stop < end) {
        // Whole windows of no data pass as they are.
        stop = end === size ? end : Math.floor(end / windowBytes) * windowBytes;
        yield stepOf({ ...piece, start, length: stop - start });
      } else {
        gathered.push(cutOut(piece, start, stop));
        if (stop === windowEnd(start)) {
          yield* asWindow(gathered, rule);
          gathered = [];
        }
      }
      start = stop;
    }
  }
  yield* asWindow(gathered, rule);
}

function cutOut(piece: Piece, start: number, end: number): Piece {
  const { kind, segments } = piece;
  if (segments === undefined) return { kind, start, length: end - start };
  const parts: DataSegment[] = [];
  let at = piece.start;
  for (const { bytes, length } of segments) {
    const from = Math.max(at, start);
    const to = Math.min(at + length, end);
    if (from < to) {
      const moved = bytes && { ...bytes, offset: bytes.offset + from - at };
      parts.push({ bytes: moved, length: to - from });
    }
    at += length;
  }
  return { kind, start, length: end - start, segments: parts };
}

/** The pieces of one window as a step, if they can be one. */
function* asWindow(pieces: readonly Piece[], rule: WindowRule): Generator<Step> {
  const data = pieces.filter(({ kind }) => kind === 'data');
  const isWindow =
    data.length > 0 &&
    pieces.every(({ kind, segments }) => kind === 'zero' || segments !== undefined);
  if (!isWindow) {
    for (const piece of pieces) yield stepOf(piece);
    return;
  }
  const { granule, size } = rule;
  const last = data[data.length - 1];
  const start = Math.floor(data[0].start / granule) * granule;
  const end = Math.min(size, Math.ceil((last.start + last.length) / granule) * granule);
  const segments: DataSegment[] = [];
  for (const piece of pieces) {
    const from = Math.max(start, piece.start);
    const to = Math.min(end, piece.start + piece.length);
    if (from >= to) continue;
    if (piece.segments === undefined) segments.push({ bytes: undefined, length: to - from });
    else segments.push(...piece.segments);
  }
  const dataBytes = data.reduce((sum, { length }) => sum + length, 0);
  const portions = portionsOf(data, rule.portionBytes);
  yield { kind: 'copy', start, length: end - start, dataBytes, portions, segments };
}

function portionsOf(data: readonly Piece[], portionBytes: number): number[] {
  const portions: number[] = [];
  let end = 0;
  for (const { start, length } of data) {
    if (start < end) portions[portions.length - 1] += length;
    else portions.push(length);
    end = (Math.floor(start / portionBytes) + 1) * portionBytes;
  }
  return portions;
}
