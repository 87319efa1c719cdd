/** Taking a line of the control block for a queue, and giving it back. */
import assert from 'node:assert/strict';
import { CowherdError } from '../../errors.js';
import type { AtomicMemory } from '../words/atomic-memory.js';
import { QueueWord, maxQueues, queueWord } from '../words/control-block.js';

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

/** The lines that belong to a queue, each as it stands when it is looked at. */
export function* linesInUse(memory: AtomicMemory): Generator<number> {
  for (let line = 0; line < maxQueues; line++) {
    if (memory.load(queueWord(line, QueueWord.inUse)) !== 0) yield line;
  }
}

/** How many queues hold the image, at least 1. */
export function queuesInUse(memory: AtomicMemory): number {
  return Math.max(1, [...linesInUse(memory)].length);
}

/** Consecutive clusters. */
export interface ReservedClusters {
  readonly cluster: number;
  readonly length: number;
}

const lowBits = 0x40000000;

/** Words of a queue's line that hold a run of clusters: the first one in two parts, and the length. */
const Run = {
  reserved: {
    low: QueueWord.reservedLow,
    high: QueueWord.reservedHigh,
    length: QueueWord.reservedLength,
  },
  packed: { low: QueueWord.packedLow, high: QueueWord.packedHigh, length: QueueWord.packedLength },
} as const;

function storeRun(
  memory: AtomicMemory,
  line: number,
  kind: keyof typeof Run,
  { cluster, length }: ReservedClusters,
): void {
  const words = Run[kind];
  memory.store(queueWord(line, words.low), cluster % lowBits);
  memory.store(queueWord(line, words.high), Math.floor(cluster / lowBits));
  memory.store(queueWord(line, words.length), length);
}

function loadRun(memory: AtomicMemory, line: number, kind: keyof typeof Run): ReservedClusters {
  const words = Run[kind];
  const high = memory.load(queueWord(line, words.high));
  const low = memory.load(queueWord(line, words.low));
  return { cluster: high * lowBits + low, length: memory.load(queueWord(line, words.length)) };
}

/** Publishes which clusters a queue's arena has reserved, none of which is taken. */
export function publishReserved(memory: AtomicMemory, line: number, run: ReservedClusters): void {
  storeRun(memory, line, 'reserved', run);
  memory.store(queueWord(line, QueueWord.reservedTaken), 0);
}

/** What a queue's arena has reserved and not taken, while that queue runs no request. */
export function reservedRest(memory: AtomicMemory, line: number): ReservedClusters | undefined {
  const taken = memory.load(queueWord(line, QueueWord.reservedTaken));
  const { cluster, length } = loadRun(memory, line, 'reserved');
  return length === taken ? undefined : { cluster: cluster + taken, length: length - taken };
}

/** Publishes which clusters a queue holds a reference to because it packs compressed data into them. */
export function publishPacked(memory: AtomicMemory, line: number, run: ReservedClusters): void {
  storeRun(memory, line, 'packed', run);
}

/**
 * The clusters that all queues count and no table refers to, while none of them runs a request: in
 * their arenas, and for what they are packing.
 */
export function heldByQueues(memory: AtomicMemory): ReservedClusters[] {
  const runs: ReservedClusters[] = [];
  for (const line of linesInUse(memory)) {
    const rest = reservedRest(memory, line);
    if (rest !== undefined) runs.push(rest);
    const packed = loadRun(memory, line, 'packed');
    if (packed.length > 0) runs.push(packed);
  }
  return runs;
}

/** Takes what is left out of the arenas of all queues, while none of them runs a request. */
export function takeReserved(memory: AtomicMemory): ReservedClusters[] {
  const runs: ReservedClusters[] = [];
  for (const line of linesInUse(memory)) {
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
  const active = memory.load(queueWord(line, QueueWord.active));
  assert(active === 0, 'a queue leaves that has requests under way');
  memory.store(queueWord(line, QueueWord.reservedLength), 0);
  memory.store(queueWord(line, QueueWord.reservedTaken), 0);
  memory.store(queueWord(line, QueueWord.packedLength), 0);
  memory.store(queueWord(line, QueueWord.inUse), 0);
}
