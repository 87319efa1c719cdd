/** Taking a line of the control block for a queue, and giving it back. */
import { CowherdError } from '../errors.js';
import type { AtomicMemory } from './atomic-memory.js';
import { QueueWord, maxQueues, queueWord } from './control-block.js';

/**
 * Takes a free line.
 *
 * @returns its number
 * @throws ERR_COWHERD_OUT_OF_RANGE if `maxQueues` queues hold the image already
 */
export function takeQueueLine(memory: AtomicMemory): number {
  for (let line = 0; line < maxQueues; line++) {
    if (memory.compareExchange(queueWord(line, QueueWord.inUse), 0, 1) === 0) return line;
  }
  throw new CowherdError(
    'ERR_COWHERD_OUT_OF_RANGE',
    `an image can be held by at most ${maxQueues} queues`,
  );
}

const lowBits = 0x40000000;

/** Consecutive clusters. */
export interface ReservedClusters {
  readonly cluster: number;
  readonly length: number;
}

/** Publishes which clusters a queue's arena has reserved last. */
export function publishReserved(memory: AtomicMemory, line: number, run: ReservedClusters): void {
  memory.store(queueWord(line, QueueWord.reservedLow), run.cluster % lowBits);
  memory.store(queueWord(line, QueueWord.reservedHigh), Math.floor(run.cluster / lowBits));
  memory.store(queueWord(line, QueueWord.reservedLength), run.length);
}

/** What the arenas of all queues have reserved last, while none of them runs a request. */
export function reservedByQueues(memory: AtomicMemory): ReservedClusters[] {
  const runs: ReservedClusters[] = [];
  for (let line = 0; line < maxQueues; line++) {
    if (memory.load(queueWord(line, QueueWord.inUse)) === 0) continue;
    const length = memory.load(queueWord(line, QueueWord.reservedLength));
    const high = memory.load(queueWord(line, QueueWord.reservedHigh));
    const cluster = high * lowBits + memory.load(queueWord(line, QueueWord.reservedLow));
    if (length > 0) runs.push({ cluster, length });
  }
  return runs;
}

/** Gives a line back, whose queue is idle. */
export function releaseQueueLine(memory: AtomicMemory, line: number): void {
  memory.store(queueWord(line, QueueWord.reservedLength), 0);
  memory.store(queueWord(line, QueueWord.inUse), 0);
}
