/** Finds zeroes in buffers: the addon's kernels, or Node's memory comparison without it. */
import { addon } from './addon.js';

/** Below this many bytes a call into the addon costs more than looking. */
const callThreshold = 64;

const zeroes = new Uint8Array(65536);

/** Whether all bytes of a buffer are zero; an empty one counts. */
export function isZero(buffer: Uint8Array): boolean {
  if (buffer.byteLength >= callThreshold) {
    return addon === undefined ? comparesAsZero(buffer) : addon.isZero(buffer);
  }
  for (const byte of buffer) {
    if (byte !== 0) return false;
  }
  return true;
}

/**
 * Lengths in bytes of the alternating runs of data and zeroes that make up a buffer. The first is
 * data, and 0 where the buffer begins with zeroes.
 *
 * @param granularity bytes of a block, above 0; blocks count from the buffer's start, and a block
 *   is zero only as a whole
 */
export function zeroRuns(buffer: Uint8Array, granularity: number): Int32Array {
  const lengths = new Int32Array(Math.ceil(buffer.byteLength / granularity) + 1);
  const count =
    addon === undefined
      ? scanRuns(buffer, granularity, lengths)
      : addon.zeroRuns(buffer, granularity, lengths);
  return lengths.subarray(0, count);
}

function scanRuns(buffer: Uint8Array, granularity: number, lengths: Int32Array): number {
  let count = 0;
  let start = 0;
  let runIsZero = false;
  for (let at = 0; at < buffer.byteLength; at += granularity) {
    const zero = isZero(buffer.subarray(at, at + granularity));
    if (zero === runIsZero) continue;
    lengths[count] = at - start;
    count += 1;
    start = at;
    runIsZero = zero;
  }
  lengths[count] = buffer.byteLength - start;
  return count + 1;
}

function comparesAsZero(buffer: Uint8Array): boolean {
  for (let at = 0; at < buffer.byteLength; at += zeroes.byteLength) {
    const part = buffer.subarray(at, at + zeroes.byteLength);
    if (Buffer.compare(part, zeroes.subarray(0, part.byteLength)) !== 0) return false;
  }
  return true;
}
