/**
 * Pooled requests for the hot path: one storage request, a promise for the caller, and a step when
 * it has ended. In the steady state nothing but the promise is allocated.
 */
import type { Completion } from '../../storage/storage.js';
import { Counter, type QueueCounters } from './counters.js';

/**
 * Does a write that has failed once more in another way; undefined if that is no use. The buffer had
 * `length` bytes when the write began.
 */
export type WriteAgain = (
  error: Error,
  buffer: Uint8Array,
  length: number,
  guestOffset: number,
) => Promise<void> | undefined;

/** Where requests transfer their bytes: a storage file, or what stands before one. Offsets are in bytes. */
export interface TransferTarget {
  /** Starts filling the buffer; see `StorageFile`. */
  submitRead(
    buffer: Uint8Array,
    hostOffset: number,
    completion: Completion,
    guestOffset: number,
  ): void;
  /** Starts writing the whole buffer; see `StorageFile`. */
  submitWrite(
    buffer: Uint8Array,
    hostOffset: number,
    completion: Completion,
    guestOffset: number,
  ): void;
}

/** Settles the promise of a request, if need be by another one. */
export type Resolve = (ended?: Promise<void>) => void;

class PooledRequest implements Completion {
  resolve: Resolve | undefined;
  reject: ((error: Error) => void) | undefined;
  epoch = 0;
  /** Of a write that can be done again. */
  buffer: Uint8Array | undefined;
  length = 0;
  guestOffset = 0;
  begun = 0;
  readonly #pool: RequestPool;

  constructor(pool: RequestPool) {
    this.#pool = pool;
  }

  complete(error: Error | null): void {
    const { resolve, reject, buffer, length, guestOffset } = this;
    this.resolve = undefined;
    this.reject = undefined;
    this.buffer = undefined;
    const again =
      error === null || buffer === undefined
        ? undefined
        : this.#pool.again?.(error, buffer, length, guestOffset);
    this.#pool.ended(this, error !== null && again === undefined);
    if (error === null || again !== undefined) resolve?.(again);
    else reject?.(error);
  }
}

/** The requests of one kind of one queue. */
export class RequestPool {
  readonly #idle: PooledRequest[] = [];
  readonly #counters: QueueCounters;
  readonly #onEnd: (epoch: number) => void;
  readonly again: WriteAgain | undefined;
  #resolve: Resolve | undefined;
  #reject: ((error: Error) => void) | undefined;
  readonly #executor = (resolve: Resolve, reject: (error: Error) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  /**
   * @param onEnd called with its epoch when a request has ended
   * @param again called with a write that has failed
   */
  constructor(counters: QueueCounters, onEnd: (epoch: number) => void, again?: WriteAgain) {
    this.#counters = counters;
    this.#onEnd = onEnd;
    this.again = again;
  }

  /** Reads the whole buffer from a host offset in bytes; the guest offset is the same by default. */
  submitRead(
    target: TransferTarget,
    buffer: Uint8Array,
    hostOffset: number,
    epoch: number,
    guestOffset = hostOffset,
  ): Promise<void> {
    const promise = new Promise<void>(this.#executor);
    target.submitRead(buffer, hostOffset, this.#take(epoch), guestOffset);
    return promise;
  }

  /** Writes the whole buffer, whose guest offset is told if it fails, at a host offset in bytes. */
  submitWrite(
    target: TransferTarget,
    buffer: Uint8Array,
    hostOffset: number,
    epoch: number,
    guestOffset: number,
  ): Promise<void> {
    const promise = new Promise<void>(this.#executor);
    const request = this.#take(epoch);
    request.buffer = buffer;
    request.length = buffer.length;
    request.guestOffset = guestOffset;
    target.submitWrite(buffer, hostOffset, request, guestOffset);
    return promise;
  }

  /** Takes a request back. */
  ended(request: PooledRequest, failed: boolean): void {
    if (failed) this.#counters.add(Counter.failures);
    this.#counters.end(request.begun);
    this.#idle.push(request);
    this.#onEnd(request.epoch);
  }

  /** A request that settles the promise made last. */
  #take(epoch: number): PooledRequest {
    const request = this.#idle.pop() ?? new PooledRequest(this);
    request.epoch = epoch;
    request.begun = this.#counters.begin();
    request.resolve = this.#resolve;
    request.reject = this.#reject;
    return request;
  }
}
