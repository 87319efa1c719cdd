/**
 * Reference counts of every width in the bytes of a refcount block (specification, "Reference
 * Counts"): widths below a byte are packed from the least significant bit on.
 */
import { problemWith } from '../../../errors.js';

/** Reads and writes single counts. `start` is the byte position of entry 0 in the view. */
export interface RefcountWidth {
  get(view: DataView, start: number, index: number): number;
  set(view: DataView, start: number, index: number, value: number): void;
}

/**
 * The reader and writer of counts of 2^order bits.
 *
 * @param filename whose counts they are, for the error of a count beyond 2^53 - 1
 */
export function refcountWidth(order: number, filename = ''): RefcountWidth {
  return order === widestOrder ? wide(filename) : widths[order];
}

const widestOrder = 6;
const largestHigh = 0x1fffff;

/** The reader of counts of 2^order bits for which none is too large: a bigint where no number holds it. */
export function exactCounts(order: number): (view: DataView, index: number) => number | bigint {
  const width = refcountWidth(order);
  if (order !== widestOrder) return (view, index) => width.get(view, 0, index);
  return (view, index) =>
    view.getUint32(index * 8) > largestHigh
      ? view.getBigUint64(index * 8)
      : width.get(view, 0, index);
}

/** Counts of 64 bits. */
function wide(filename: string): RefcountWidth {
  return {
    get(view, start, index) {
      const high = view.getUint32(start + index * 8);
      if (high > largestHigh) {
        throw problemWith(
          'ERR_COWHERD_INVALID_IMAGE',
          filename,
          'a reference count is beyond what can be represented',
        );
      }
      return high * 0x100000000 + view.getUint32(start + index * 8 + 4);
    },
    set(view, start, index, value) {
      view.setUint32(start + index * 8, Math.floor(value / 0x100000000));
      view.setUint32(start + index * 8 + 4, value % 0x100000000);
    },
  };
}

function packed(order: number): RefcountWidth {
  const bits = 1 << order;
  const perByteShift = 3 - order;
  const mask = (1 << bits) - 1;
  return {
    get(view, start, index) {
      const shift = (index & ((1 << perByteShift) - 1)) << order;
      return (view.getUint8(start + (index >> perByteShift)) >> shift) & mask;
    },
    set(view, start, index, value) {
      const at = start + (index >> perByteShift);
      const shift = (index & ((1 << perByteShift) - 1)) << order;
      view.setUint8(at, (view.getUint8(at) & ~(mask << shift)) | (value << shift));
    },
  };
}

const widths: readonly RefcountWidth[] = [
  packed(0),
  packed(1),
  packed(2),
  {
    get: (view, start, index) => view.getUint8(start + index),
    set: (view, start, index, value) => {
      view.setUint8(start + index, value);
    },
  },
  {
    get: (view, start, index) => view.getUint16(start + index * 2),
    set: (view, start, index, value) => {
      view.setUint16(start + index * 2, value);
    },
  },
  {
    get: (view, start, index) => view.getUint32(start + index * 4),
    set: (view, start, index, value) => {
      view.setUint32(start + index * 4, value);
    },
  },
];
