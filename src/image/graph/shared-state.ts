/** What all threads that have one image open share of it, beside what its format shares. */
import { type CounterMemory, allocateCounters } from '../../engine/queues/counters.js';
import { allocateMembers } from '../../engine/queues/members.js';
import { allocateControlBlock } from '../../engine/words/control-block.js';
import { allocateEdgeRecord } from './backing-edge.js';
import { throttleWords } from '../../engine/throttle.js';

/** Shared memory; structured-cloneable. */
export interface SharedState {
  /** The words of `members`, of which each thread is one. */
  readonly members: Int32Array;
  /** The words of its node. */
  readonly control: Int32Array;
  /** What was put below it last. */
  readonly edge: SharedArrayBuffer;
  readonly counters: CounterMemory;
  /** The words of the image's throttle. */
  readonly throttle: Int32Array;
}

/** Makes the shared memory of an image that is being opened. */
export function allocateSharedState(): SharedState {
  return {
    members: allocateMembers(),
    control: allocateControlBlock(),
    edge: allocateEdgeRecord(),
    counters: allocateCounters(),
    throttle: new Int32Array(new SharedArrayBuffer(throttleWords * 4)),
  };
}
