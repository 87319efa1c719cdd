/**
 * The shared words of one open image: three lines for the image, one for each queue. Each word is
 * named here and nowhere else.
 */

const wordsPerLine = 16;
const imageLines = 3;

/** Most queues that may hold one image at the same time. */
export const maxQueues = 256;

/**
 * Words of the image's own lines. What every request reads lies in the first, what is locked in the
 * second, who holds a lock in the third (see `holderWord`).
 */
export const ControlWord = {
  /** One of `GateState`. */
  gate: 0,
  /** Counts removals of references, by twos; a request carries the value it began with. */
  epoch: 1,
  /** Counts reclaimed compressed clusters, which caches of their content compare with. */
  compressedGeneration: 2,
  /** 1 once the image's metadata were found to contradict themselves: nothing may be written. */
  corrupt: 3,
  /** Raised before and after each change of the two words of the size: odd while they change. */
  resizes: 4,
  /** Virtual size in bytes, in two parts. */
  sizeLow: 5,
  sizeHigh: 6,
  /** Words of the long locks; see mutex-word. */
  l1Mutex: 16,
  refcountMutex: 17,
  flushMutex: 18,
  headerMutex: 19,
  /** Flush rounds begun and completed; they wrap. */
  roundsBegun: 20,
  roundsCompleted: 21,
  /** Data written by queues that have left. */
  unflushedData: 22,
  /** An L2 table was written around the cache, which its L1 entry must not overtake. */
  unflushedTable: 23,
  /** Some queue has begun to change guest data since the image was opened. */
  changed: 24,
  /** Bytes were copied to a new cluster, which the entry pointing at it must not overtake. */
  unflushedCopy: 25,
  /** A round has failed: what it wrote counts as clean, but no barrier has covered it. */
  barrierOwed: 26,
  /** Threads that have had the image open so far; each is named by how many there were before it. */
  threads: 27,
  /** Counts replacements of the image below: raised before and after each, so odd while one is made. */
  edgeReplacements: 28,
  /** Virtual size of the image below in bytes, in two parts; 0 if there is none. */
  belowSizeLow: 29,
  belowSizeHigh: 30,
  /** Whether entries were changed that the file does not have yet; see `EntriesState`. */
  entriesState: 31,
} as const;

/** What the word of the entries says. */
export const EntriesState = {
  /** All that were changed by requests that have completed are in the file. */
  settled: 0,
  changed: 1,
  /** A round writes those that were changed before it began; none was since then. */
  settling: 2,
} as const;

/** What the gate word says. */
export const GateState = {
  open: 0,
  /** An exclusive operation holds the gate. */
  closed: 1,
  /** A thread has died that had the image open; nobody may use it any more. */
  poisoned: 2,
} as const;

/** Words of a queue's line. */
export const QueueWord = {
  /** 1 while the line belongs to a queue. */
  inUse: 0,
  /** 1 while the queue has requests under way. */
  active: 1,
  /** Epoch of the oldest request under way, or `idleEpoch`. */
  oldestEpoch: 2,
  /** 1 once the queue has written data that no flush round has taken notice of. */
  unflushedData: 3,
  /**
   * The run of host clusters its arena reserved last: the first one in two parts, the length, and how
   * many of them have been taken.
   */
  reservedLow: 4,
  reservedHigh: 5,
  reservedLength: 6,
  reservedTaken: 7,
  /** The clusters that it holds a reference to while it packs compressed data into them. */
  packedLow: 8,
  packedHigh: 9,
  packedLength: 10,
  /** The number of the thread it belongs to; for whoever waits for it in vain. */
  thread: 11,
} as const;

/** Published by a queue that runs no request; odd, which no epoch is. */
export const idleEpoch = 1;

/** Makes the control block of an image that is being opened. */
export function allocateControlBlock(): Int32Array {
  const block = new Int32Array(new SharedArrayBuffer((maxQueues + imageLines) * wordsPerLine * 4));
  for (let line = 0; line < maxQueues; line++) {
    block[queueWord(line, QueueWord.oldestEpoch)] = idleEpoch;
  }
  return block;
}

const firstHolderWord = 2 * wordsPerLine;

/**
 * Index of the note of who holds a lock, the gate or a long mutex: the thread's number + 1, or 0. In the
 * word after it is since when, by milliseconds that wrap. Nothing but messages goes by it.
 */
export function holderWord(lock: number): number {
  const nth = lock === ControlWord.gate ? 0 : 1 + lock - ControlWord.l1Mutex;
  return firstHolderWord + 2 * nth;
}

/** The line of a queue's word of an index. */
export function lineOf(index: number): number {
  return Math.floor(index / wordsPerLine) - imageLines;
}

/** Index of a queue's word in the control block. */
export function queueWord(line: number, word: (typeof QueueWord)[keyof typeof QueueWord]): number {
  return (line + imageLines) * wordsPerLine + word;
}
