/** When the changes of a recorded file reach the disk, and at which moments that makes a difference. */
import {
  type LoggedBarrier,
  type LoggedChange,
  durableFrom,
} from '../../src/storage/filters/crash-log.js';
import type { Promises } from './promises.js';
import type { RecordedFile } from './recording.js';
import type { PlacedPiece } from './states.js';

/** A change with its times. */
export interface Pending extends PlacedPiece {
  readonly submitted: number;
  readonly completed: number;
  readonly durable: number;
}

/** The changes of a file with the times at which they reach the disk. */
export function pendingOf(
  { initial, log }: RecordedFile,
  file: 0 | 1,
  barriers: readonly LoggedBarrier[],
): Pending[] {
  let size = initial.length;
  const grows = new Map<LoggedChange, boolean>();
  // In the order in which they took effect.
  for (const change of log.changes.toSorted((one, other) => one.completed - other.completed)) {
    const end = change.offset + change.length;
    grows.set(change, end >= size);
    if (change.kind === 'truncate') size = change.offset;
    else if (change.kind !== 'discard') size = Math.max(size, end);
  }
  return log.changes.map((change) => ({
    file,
    kind: change.kind,
    offset: change.offset,
    bytes: change.bytes,
    start: 0,
    end: change.length,
    grows: grows.get(change)!,
    submitted: change.submitted,
    completed: change.completed,
    durable: durableFrom(change, barriers),
  }));
}

/** The moments at which what a power cut can leave, or what was promised, becomes another. */
export function pointsOf(
  promises: Promises,
  changes: readonly Pending[],
  barriers: readonly LoggedBarrier[],
): readonly number[] {
  const points = new Set([0]);
  for (const { submitted } of changes) points.add(submitted);
  for (const { completed } of barriers) if (completed !== Infinity) points.add(completed);
  for (const { ended } of promises.flushes) points.add(ended);
  return [...points].sort((one, other) => one - other);
}
