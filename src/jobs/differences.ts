/** Finds the first byte at which buffers differ; equal stretches are compared at memory speed. */

const zeroes = new Uint8Array(64 * 1024);

/** Index of the first byte that differs between two buffers of one length, or -1. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1;
  // Halving keeps the difference in view and costs no more than comparing once again.
  let start = 0;
  let length = a.length;
  while (length > 64) {
    const half = length >>> 1;
    const middle = start + half;
    if (Buffer.compare(a.subarray(start, middle), b.subarray(start, middle)) === 0) {
      start = middle;
      length -= half;
    } else {
      length = half;
    }
  }
  while (a[start] === b[start]) start += 1;
  return start;
}

/** Index of the first byte that is not zero, or -1. */
export function firstNonZero(bytes: Uint8Array): number {
  for (let offset = 0; offset < bytes.length; offset += zeroes.length) {
    const part = bytes.subarray(offset, offset + zeroes.length);
    const at = firstDifference(part, zeroes.subarray(0, part.length));
    if (at !== -1) return offset + at;
  }
  return -1;
}
