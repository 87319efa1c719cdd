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

/** How many queues hold the image, at least 1. */
export function queuesInUse(memory: AtomicMemory): number {
  let count = 0;
  for (let line = 0; line < maxQueues; line++) {
    count += memory.load(queueWord(line, QueueWord.inUse));
  }
  return Math.max(1, count);
}

/** Consecutive clusters. */
export interface ReservedClusters {
  readonly cluster: number;
  readonly length: number;
}

const lowBits = 0x40000000;

/** Publishes which clusters a queue's arena has reserved, none of which is taken. */
export function publishReserved(memory: AtomicMemory, line: number, run: ReservedClusters): void {
  memory.store(queueWord(line, QueueWord.reservedLow), run.cluster % lowBits);
  memory.store(queueWord(line, QueueWord.reservedHigh), Math.floor(run.cluster / lowBits));
  memory.store(queueWord(line, QueueWord.reservedLength), run.length);
  memory.store(queueWord(line, QueueWord.reservedTaken), 0);
}

/** What a queue's arena has reserved and not taken, while that queue runs no request. */
export function reservedRest(memory: AtomicMemory, line: number): ReservedClusters | undefined {
  const taken = memory.load(queueWord(line, QueueWord.reservedTaken));
  const length = memory.load(queueWord(line, QueueWord.reservedLength)) - taken;
  if (length === 0) return undefined;
  const high = memory.load(queueWord(line, QueueWord.reservedHigh));
  const low = memory.load(queueWord(line, QueueWord.reservedLow));
  return { cluster: high * lowBits + low + taken, length };
}

/** Publishes which clusters a queue holds a reference to because it packs compressed data into them. */
export function publishPacked(memory: AtomicMemory, line: number, run: ReservedClusters): void {
  memory.store(queueWord(line, QueueWord.packedLow), run.cluster % lowBits);
  memory.store(queueWord(line, QueueWord.packedHigh), Math.floor(run.cluster / lowBits));
  memory.store(queueWord(line, QueueWord.packedLength), run.length);
}

/**
 * The clusters that all queues count and no table refers to, while none of them runs a request: in
 * their arenas, and for what they are packing.
 */
export function heldByQueues(memory: AtomicMemory): ReservedClusters[] {
  const runs: ReservedClusters[] = [];
  for (let line = 0; line < maxQueues; line++) {
    if (memory.load(queueWord(line, QueueWord.inUse)) === 0) continue;
    const rest = reservedRest(memory, line);
    if (rest !== undefined) runs.push(rest);
    const length = memory.load(queueWord(line, QueueWord.packedLength));
    const high = memory.load(queueWord(line, QueueWord.packedHigh));
    const cluster = high * lowBits + memory.load(queueWord(line, QueueWord.packedLow));
    if (length > 0) runs.push({ cluster, length });
  }
  return runs;
}

/** Takes what is left out of the arenas of all queues, while none of them runs a request. */
export function takeReserved(memory: AtomicMemory): ReservedClusters[] {
  const runs: ReservedClusters[] = [];
  for (let line = 0; line < maxQueues; line++) {
    if (memory.load(queueWord(line, QueueWord.inUse)) === 0) continue;
    const rest = reservedRest(memory, line);
    if (rest === undefined) continue;
    const length = memory.load(queueWord(line, QueueWord.reservedLength));
    memory.store(queueWord(line, QueueWord.reservedTaken), length);
    runs.push(rest);
  }
  return runs;
}

/** Gives a line back, whose queue is idle. */
export function releaseQueueLine(memory: AtomicMemory, line: number): void {
  memory.store(queueWord(line, QueueWord.reservedLength), 0);
  memory.store(queueWord(line, QueueWord.reservedTaken), 0);
  memory.store(queueWord(line, QueueWord.packedLength), 0);
  memory.store(queueWord(line, QueueWord.inUse), 0);
}
