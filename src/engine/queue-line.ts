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

/** Gives a line back, whose queue is idle. */
export function releaseQueueLine(memory: AtomicMemory, line: number): void {
  memory.store(queueWord(line, QueueWord.inUse), 0);
}
