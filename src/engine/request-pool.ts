/**
 * Pooled requests for the hot path: one storage request, a promise for the caller, and a step when
 * it has ended. In the steady state nothing but the promise is allocated.
 */
import type { Completion, StorageFile } from '../storage/storage.js';
import { Counter, type QueueCounters } from './counters.js';

class PooledRequest implements Completion {
  resolve: (() => void) | undefined;
  reject: ((error: Error) => void) | undefined;
  epoch = 0;
  begun = 0;
  readonly #pool: RequestPool;

  constructor(pool: RequestPool) {
    this.#pool = pool;
  }

  complete(error: Error | null): void {
    const { resolve, reject } = this;
    this.resolve = undefined;
    this.reject = undefined;
    this.#pool.ended(this, error !== null);
    if (error === null) resolve?.();
    else reject?.(error);
  }
}

/** The requests of one kind of one queue. */
export class RequestPool {
  readonly #idle: PooledRequest[] = [];
  readonly #counters: QueueCounters;
  readonly #onEnd: (epoch: number) => void;
  #resolve: (() => void) | undefined;
  #reject: ((error: Error) => void) | undefined;
  readonly #executor = (resolve: () => void, reject: (error: Error) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  /** @param onEnd called with its epoch when a request has ended */
  constructor(counters: QueueCounters, onEnd: (epoch: number) => void) {
    this.#counters = counters;
    this.#onEnd = onEnd;
  }

  /** Reads the whole buffer from a host offset in bytes. */
  submitRead(
    file: StorageFile,
    buffer: Uint8Array,
    hostOffset: number,
    epoch: number,
  ): Promise<void> {
    const promise = new Promise<void>(this.#executor);
    file.submitRead(buffer, hostOffset, this.#take(epoch));
    return promise;
  }

  /** Writes the whole buffer at a host offset in bytes. */
  submitWrite(
    file: StorageFile,
    buffer: Uint8Array,
    hostOffset: number,
    epoch: number,
  ): Promise<void> {
    const promise = new Promise<void>(this.#executor);
    file.submitWrite(buffer, hostOffset, this.#take(epoch));
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
