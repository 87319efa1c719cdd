/** What a pool and its threads tell each other: requests and answers, in batches of one turn. */
import type { ImageHandle } from '../api/image.js';
import type { ErrorMessage } from './error-transfer.js';

/** What a thread of a pool is started with. */
export interface PoolOrders {
  readonly handle: ImageHandle;
  /** Queues of this thread. */
  readonly queues: number;
}

/** Requests of a pool. */
export type PoolOperation = 'read' | 'write' | 'writeZeroes' | 'discard' | 'flush' | 'close';

/** One request for a queue of a thread. */
export interface PoolRequest {
  readonly id: number;
  readonly operation: PoolOperation;
  /** Which of the thread's queues. */
  readonly queue: number;
  /** Guest offset in bytes. */
  readonly offset: number;
  readonly length: number;
  readonly unmap: boolean;
  /** Shared memory that is read into or written from; undefined where there is none. */
  readonly buffer: Uint8Array | undefined;
}

/** The end of a request. */
export interface PoolAnswer {
  readonly id: number;
  readonly error: ErrorMessage | undefined;
}
