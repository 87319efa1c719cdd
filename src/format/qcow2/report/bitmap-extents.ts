/** What a persistent bitmap says of a guest range, as a stream of extents. */
import type { AbortSignalLike } from '../../../abort-signal.js';
import type { BitmapExtent } from '../../driver.js';

/** The bits of a bitmap, in windows of as many as a cluster holds. */
export interface BitmapWindows {
  /** Bytes that a bit stands for. */
  readonly granule: number;
  /** Guest bytes that a window stands for. */
  readonly reach: number;
  /** The bits of a window, lowest first; undefined if none of them is set. */
  read(index: number): Promise<Uint8Array | undefined>;
}

/** The extents of a guest range in a bitmap, ascending and covering it. */
export async function* bitmapExtents(
  windows: BitmapWindows,
  offset: number,
  length: number,
  signal: AbortSignalLike | undefined,
): AsyncGenerator<BitmapExtent> {
  const { granule, reach } = windows;
  const end = offset + length;
  let last: { start: number; length: number; dirty: boolean } | undefined;
  for (let at = offset; at < end;) {
    signal?.throwIfAborted();
    const index = Math.floor(at / reach);
    const upTo = Math.min(end, (index + 1) * reach);
    const bits = await windows.read(index);
    for (const run of runsOf(bits, index * reach, granule, at, upTo)) {
      if (last?.dirty === run.dirty) last.length += run.length;
      else {
        if (last !== undefined) yield last;
        last = run;
      }
    }
    at = upTo;
  }
  if (last !== undefined) yield last;
}

/** The runs of a range within a window, whose first bit stands for what begins at `base`. */
function* runsOf(
  bits: Uint8Array | undefined,
  base: number,
  granule: number,
  start: number,
  end: number,
): Generator<{ start: number; length: number; dirty: boolean }> {
  if (bits === undefined) {
    yield { start, length: end - start, dirty: false };
    return;
  }
  const first = Math.floor((start - base) / granule);
  const last = Math.ceil((end - base) / granule);
  const isSet = (bit: number): boolean => (bits[bit >>> 3] & (1 << (bit & 7))) !== 0;
  let at = start;
  for (let bit = first; bit < last;) {
    const dirty = isSet(bit);
    const same = dirty ? 0xff : 0;
    bit += 1;
    while (bit < last && isSet(bit) === dirty) {
      // Eight at a time where they are alike.
      const isWhole = (bit & 7) === 0 && bit + 8 <= last;
      bit += isWhole && bits[bit >>> 3] === same ? 8 : 1;
    }
    const upTo = Math.min(end, base + bit * granule);
    yield { start: at, length: upTo - at, dirty };
    at = upTo;
  }
}
