/**
 * The shared words of one open image: one line for the image, one for each queue. Each word is
 * named here and nowhere else.
 */

const wordsPerLine = 16;

/** Most queues that may hold one image at the same time. */
export const maxQueues = 256;

/** Words of the image's own line. */
export const ControlWord = {
  /** 0 while requests may start, 1 while an exclusive operation holds the gate. */
  gate: 0,
  /** Counts removals of references; a request carries the value it began with. */
  epoch: 1,
  /** Flush rounds begun and completed. */
  roundsBegun: 2,
  roundsCompleted: 3,
  /** Shared words of the long locks. */
  l1Mutex: 4,
  refcountMutex: 5,
  flushMutex: 6,
  /** Spinning reader-writer word over the entries of the L1 table. */
  l1Word: 7,
  /** Counts reclaimed compressed clusters, which caches of their content compare with. */
  compressedGeneration: 8,
  /** Non-zero once the image must not be written any more. */
  poisoned: 9,
} as const;

/** Words of a queue's line. */
export const QueueWord = {
  /** 1 while the line belongs to a queue. */
  inUse: 0,
  /** Requests under way. */
  active: 1,
  /** Epoch of the oldest request under way, or `idleEpoch`. */
  oldestEpoch: 2,
} as const;

/** Published by a queue that runs no request. */
export const idleEpoch = 0x7fffffff;

/** Makes the control block of an image that is being opened. */
export function allocateControlBlock(): Int32Array {
  return new Int32Array(new SharedArrayBuffer((maxQueues + 1) * wordsPerLine * 4));
}

/** Index of a queue's word in the control block. */
export function queueWord(
  queueIndex: number,
  word: (typeof QueueWord)[keyof typeof QueueWord],
): number {
  return (queueIndex + 1) * wordsPerLine + word;
}
