/**
 * What the replay of a log writes, held in memory instead: ranges of the file, each with the bytes that it
 * has once all has been written. Plain data, which other threads get copies of.
 */
import { type LoggedWrite, logSectorBytes } from './log.js';

/** Ranges that do not overlap, ascending; in bytes. */
export interface ReplayedRanges {
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  /** Which sector of `bytes` a range is; -1 for one of zeroes. */
  readonly sectors: Int32Array;
  readonly bytes: Uint8Array;
}

/** Puts writes together: of those of the same bytes, the last one holds. */
export function replay(writes: readonly LoggedWrite[]): ReplayedRanges {
  // Between neighbouring edges, in a cell, a write covers all or nothing.
  const all = Float64Array.from(writes.flatMap(({ offset, length }) => [offset, offset + length]));
  const edges = all.sort().filter((edge, index) => edge !== all[index - 1]);
  const cellAt = (offset: number): number => firstAbove(edges, offset) - 1;
  const last = new Int32Array(edges.length).fill(-1);
  // From the last write to the first, each takes the cells that are free; the others are skipped.
  const nextFree = Int32Array.from({ length: edges.length + 1 }, (_, index) => index);
  const freeFrom = (cell: number): number => {
    let free = cell;
    while (nextFree[free] !== free) free = nextFree[free];
    for (let at = cell; at !== free;) {
      const after = nextFree[at];
      nextFree[at] = free;
      at = after;
    }
    return free;
  };
  for (let index = writes.length - 1; index >= 0; index--) {
    const { offset, length } = writes[index];
    const end = cellAt(offset + length);
    for (let cell = freeFrom(cellAt(offset)); cell < end; cell = freeFrom(cell)) {
      last[cell] = index;
      nextFree[cell] = cell + 1;
    }
  }
  return joined(writes, edges, last);
}

/** @param last by cell, from one edge to the next: the write that holds there, or -1 */
function joined(
  writes: readonly LoggedWrite[],
  edges: Float64Array,
  last: Int32Array,
): ReplayedRanges {
  const starts: number[] = [];
  const ends: number[] = [];
  const sectors: number[] = [];
  const kept: Uint8Array[] = [];
  for (const [cell, index] of last.entries()) {
    if (index === -1) continue;
    const { sector } = writes[index];
    if (sector === undefined && sectors.at(-1) === -1 && ends.at(-1) === edges[cell]) {
      ends[ends.length - 1] = edges[cell + 1];
      continue;
    }
    starts.push(edges[cell]);
    ends.push(edges[cell + 1]);
    sectors.push(sector === undefined ? -1 : kept.push(sector) - 1);
  }
  const bytes = new Uint8Array(kept.length * logSectorBytes);
  for (const [index, sector] of kept.entries()) bytes.set(sector, index * logSectorBytes);
  return {
    starts: Float64Array.from(starts),
    ends: Float64Array.from(ends),
    sectors: Int32Array.from(sectors),
    bytes,
  };
}

/** The first range that ends after an offset: its number, or that of ranges if there is none. */
export function firstRangeAfter({ ends }: ReplayedRanges, offset: number): number {
  return firstAbove(ends, offset);
}

/** Where the first of ascending values is that is above one. */
function firstAbove(values: Float64Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The bytes of a range from an offset in it on; undefined for zeroes. */
export function bytesOfRange(
  { starts, sectors, bytes }: ReplayedRanges,
  range: number,
  offset: number,
): Uint8Array | undefined {
  if (sectors[range] === -1) return undefined;
  const start = sectors[range] * logSectorBytes;
  return bytes.subarray(start + offset - starts[range], start + logSectorBytes);
}
