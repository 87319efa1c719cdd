/** Memory for compressed data on their way between the file and the codecs. */
import { BufferPool } from '../../../engine/buffer-pool.js';
import type { Watchdog } from '../../../engine/words/watchdog.js';
import { affordableCount, usefulCodecRuns } from '../../../native/host-capacity.js';

/** Bytes that one queue holds in either direction, unless the processors have use for more. */
const usualBytes = 4 * 1024 * 1024;

/** Bytes that a codec takes for itself, about: zstd more for its window and tables, zlib less. */
const codecBytes = 1024 * 1024;

/** Of the memory there is, the part that one queue may hold in either direction. */
const memoryShare = 1 / 8;

/** Buffers of a cluster each: enough to keep every processor busy, if there is memory for that. */
export function compressedBuffers(clusterSize: number, watchdog: Watchdog): BufferPool {
  const useful = Math.max(usefulCodecRuns(), Math.floor(usualBytes / clusterSize));
  const affordable = affordableCount(memoryShare, clusterSize + codecBytes);
  return new BufferPool(clusterSize, Math.min(useful, affordable), watchdog);
}
