/** What the queues of an open image have done, made readable from their counters. */
import {
  Counter,
  type CounterReading,
  latencyBuckets,
  readCounters,
} from '../../engine/queues/counters.js';
import { memberCount } from '../../engine/queues/members.js';
import { SharedWords } from '../../engine/words/shared-words.js';
import type { ImageStats, LatencyStats, QueueStats } from '../api/stats.js';
import type { SharedState } from './shared-state.js';

/** The counters of every queue that an image has or had, and their sum. */
export function imageStats({ counters, members }: SharedState): ImageStats {
  const readings = readCounters(counters);
  const total = new Float64Array(readings[0]?.values.length ?? Counter.latency + latencyBuckets);
  for (const { values } of readings) values.forEach((value, index) => (total[index] += value));
  return {
    threads: memberCount(new SharedWords(members)),
    queues: readings.map(queueStats),
    total: queueStats({ line: -1, open: readings.some(({ open }) => open), values: total }),
  };
}

function queueStats({ line, open, values }: CounterReading): QueueStats {
  const requests = {
    read: values[Counter.reads],
    write: values[Counter.writes],
    writeZeroes: values[Counter.writeZeroes],
    discard: values[Counter.discards],
    writeCompressed: values[Counter.compressedWrites],
    flush: values[Counter.flushes],
  };
  const started = Object.values(requests).reduce((sum, count) => sum + count, 0);
  return {
    queue: line,
    open,
    requests,
    failed: values[Counter.failures],
    inFlight: Math.max(0, started - values[Counter.ended]),
    bytesRead: values[Counter.bytesRead],
    bytesWritten: values[Counter.bytesWritten],
    latency: latencyStats(values.subarray(Counter.latency, Counter.latency + latencyBuckets)),
    waits: {
      claim: values[Counter.claimWaits],
      load: values[Counter.loadWaits],
      room: values[Counter.roomWaits],
      gate: values[Counter.gateWaits],
      throttle: values[Counter.throttleWaits],
    },
    cache: {
      hits: values[Counter.cacheHits],
      loads: values[Counter.cacheLoads],
      evictions: values[Counter.evictions],
    },
    allocatedClusters: values[Counter.allocatedClusters],
    reclaimedClusters: values[Counter.reclaimedClusters],
    flushRounds: { led: values[Counter.roundsLed], shared: values[Counter.roundsShared] },
  };
}

function latencyStats(counts: Float64Array): LatencyStats {
  const samples = counts.reduce((sum, count) => sum + count, 0);
  const quantile = (share: number): number => {
    let seen = 0;
    for (let bucket = 0; bucket < counts.length; bucket++) {
      seen += counts[bucket];
      if (seen > 0 && seen >= samples * share) return 2 ** bucket;
    }
    return 0;
  };
  const histogram = [...counts]
    .map((count, bucket) => ({ below: 2 ** bucket, count }))
    .filter(({ count }) => count > 0);
  return { samples, p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), histogram };
}
