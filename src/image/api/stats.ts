/** What the queues of an image have done. */

/** How long requests took, in microseconds, from a sample of them (one in 16). */
export interface LatencyStats {
  readonly samples: number;
  /** Upper bounds, powers of two, that so many per cent of the requests stayed below. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  /** Requests by time: each bucket holds those from half of `below` up to it. */
  readonly histogram: readonly { readonly below: number; readonly count: number }[];
}

/** What one queue, or all of an image together, has done since it was opened. */
export interface QueueStats {
  /** Number of the queue; -1 for the sum of all. */
  readonly queue: number;
  readonly open: boolean;
  readonly requests: {
    readonly read: number;
    readonly write: number;
    readonly writeZeroes: number;
    readonly discard: number;
    readonly writeCompressed: number;
    readonly flush: number;
  };
  readonly failed: number;
  /** Requests under way: the depth of the queue. */
  readonly inFlight: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly latency: LatencyStats;
  /** How often a request had to wait, by what for. */
  readonly waits: {
    /** A cluster that another request was allocating. */
    readonly claim: number;
    /** A table slice that another request was loading. */
    readonly load: number;
    /** Room in the metadata cache. */
    readonly room: number;
    /** An exclusive operation. */
    readonly gate: number;
    readonly throttle: number;
  };
  /**
   * The metadata cache: requests whose slice was there, slices loaded, slices evicted. Loads and
   * evictions, like waits for them and flush rounds, are counted with the first queue of a thread.
   */
  readonly cache: { readonly hits: number; readonly loads: number; readonly evictions: number };
  readonly allocatedClusters: number;
  readonly reclaimedClusters: number;
  /** Rounds of the flush order that were led, and rounds of another thread that were shared. */
  readonly flushRounds: { readonly led: number; readonly shared: number };
}

/** What the queues of an image have done, on all threads. */
export interface ImageStats {
  /** Threads that have the image open (opening it twice on one thread counts twice). */
  readonly threads: number;
  /** Every queue that is open, and those that have closed. */
  readonly queues: readonly QueueStats[];
  readonly total: QueueStats;
}
