/**
 * A filter that records every change of a file and every barrier, with their times, so that
 * whatever a power cut could have left at any moment can be made again.
 *
 * A change is pending from its submission until a barrier has completed that was submitted after the
 * change had completed. While it is pending a power cut may leave all of it, none of it, or some of
 * its sectors, whatever became of the other pending ones; afterwards it is on disk.
 *
 *     change   submitted ├───────┤ completed
 *     barrier                       submitted ├─────┤ completed: now the change is on disk
 */
import type { AllocateMode, Completion, StorageFile } from '../storage.js';
import { totalLength } from '../vector.js';
import { FilterFile } from './filter-file.js';

/** Kinds of changes. */
export type ChangeKind = 'write' | 'writeZeroes' | 'discard' | 'truncate' | 'allocate';

/** A change of the file; times are those of the log's clock. */
export interface LoggedChange {
  readonly kind: ChangeKind;
  /** Bytes; for `truncate` the new size. */
  readonly offset: number;
  readonly length: number;
  /** What was written, as it was when the write was submitted. */
  readonly bytes: Uint8Array | undefined;
  readonly submitted: number;
  /** Infinity until it has succeeded. One that fails is pending for ever: who knows what it did. */
  readonly completed: number;
}

/** A flush of the file. */
export interface LoggedBarrier {
  readonly submitted: number;
  /** Infinity until it has succeeded. */
  readonly completed: number;
}

/** Tells the order of events; logs that share one can be compared. */
export class LogClock {
  #now = 0;

  /** The time of the last event. */
  get now(): number {
    return this.#now;
  }

  /** The time of the next event. */
  tick(): number {
    return ++this.#now;
  }
}

/** Everything that was done to one file, by all of its queues. */
export class CrashLog {
  readonly clock: LogClock;
  /** In the order of submission. */
  readonly changes: LoggedChange[] = [];
  /** In the order of submission. */
  readonly barriers: LoggedBarrier[] = [];

  constructor(clock = new LogClock()) {
    this.clock = clock;
  }

  /** Notes a change that is being submitted. @returns what to call when it has succeeded */
  noteChange(
    kind: ChangeKind,
    offset: number,
    length: number,
    bytes?: readonly Uint8Array[],
  ): () => void {
    const change = {
      kind,
      offset,
      length,
      bytes: bytes && joined(bytes),
      submitted: this.clock.tick(),
      completed: Infinity,
    };
    this.changes.push(change);
    return () => {
      change.completed = this.clock.tick();
    };
  }

  /** Notes a barrier that is being submitted. @returns what to call when it has succeeded */
  noteBarrier(): () => void {
    const barrier = { submitted: this.clock.tick(), completed: Infinity };
    this.barriers.push(barrier);
    return () => {
      barrier.completed = this.clock.tick();
    };
  }
}

/** From when on a change is on disk, given the barriers of its file; Infinity if it never is. */
export function durableFrom(change: LoggedChange, barriers: readonly LoggedBarrier[]): number {
  let durable = Infinity;
  for (const { submitted, completed } of barriers) {
    if (submitted > change.completed) durable = Math.min(durable, completed);
  }
  return durable;
}

/** See the file's comment. */
export class CrashLogFile extends FilterFile {
  readonly log: CrashLog;

  constructor(inner: StorageFile, log: CrashLog) {
    super(inner);
    this.log = log;
  }

  openQueue(): CrashLogFile {
    return new CrashLogFile(this.inner.openQueue(), this.log);
  }

  override submitWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    const succeeded = this.log.noteChange('write', offset, buffer.length, [buffer]);
    this.inner.submitWrite(buffer, offset, {
      complete: (error) => {
        if (error === null) succeeded();
        completion.complete(error);
      },
    });
  }

  override writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const succeeded = this.log.noteChange('write', offset, totalLength(buffers), buffers);
    return noted(succeeded, this.inner.writeVector(buffers, offset));
  }

  override flush(): Promise<void> {
    return noted(this.log.noteBarrier(), this.inner.flush());
  }

  override truncate(size: number, reserve?: boolean): Promise<void> {
    return noted(this.log.noteChange('truncate', size, 0), this.inner.truncate(size, reserve));
  }

  override allocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    const succeeded = this.log.noteChange('allocate', offset, length);
    return noted(succeeded, this.inner.allocate(offset, length, mode));
  }

  override writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    const succeeded = this.log.noteChange('writeZeroes', offset, length);
    return noted(succeeded, this.inner.writeZeroes(offset, length, unmap));
  }

  override discard(offset: number, length: number): Promise<boolean> {
    const succeeded = this.log.noteChange('discard', offset, length);
    return noted(succeeded, this.inner.discard(offset, length));
  }

  /** Declined, so that every byte passes through the log. */
  override copyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected intercept(): undefined {
    return undefined;
  }
}

async function noted<Result>(succeeded: () => void, work: Promise<Result>): Promise<Result> {
  const result = await work;
  succeeded();
  return result;
}

function joined(buffers: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(totalLength(buffers));
  let at = 0;
  for (const buffer of buffers) {
    bytes.set(buffer, at);
    at += buffer.length;
  }
  return bytes;
}
