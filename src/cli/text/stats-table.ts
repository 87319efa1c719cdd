/** The table that `--stats` prints: a line for each queue, and their sum. */
import type { ImageStats, QueueStats } from '../../image/api/stats.js';

const columns: readonly (readonly [string, (stats: QueueStats) => string])[] = [
  ['queue', ({ queue }) => (queue < 0 ? 'all' : String(queue))],
  ['reads', ({ requests }) => String(requests.read)],
  ['writes', ({ requests }) => String(requests.write + requests.writeCompressed)],
  ['zeroes', ({ requests }) => String(requests.writeZeroes + requests.discard)],
  ['flushes', ({ requests }) => String(requests.flush)],
  ['MiB read', ({ bytesRead }) => mebibytes(bytesRead)],
  ['MiB written', ({ bytesWritten }) => mebibytes(bytesWritten)],
  ['p50 us', ({ latency }) => bound(latency.p50)],
  ['p99 us', ({ latency }) => bound(latency.p99)],
  ['waits', ({ waits }) => String(waits.claim + waits.load + waits.room + waits.gate)],
  ['hits', ({ cache }) => String(cache.hits)],
  ['loads', ({ cache }) => String(cache.loads)],
  ['evicted', ({ cache }) => String(cache.evictions)],
  ['allocated', ({ allocatedClusters }) => String(allocatedClusters)],
  ['reclaimed', ({ reclaimedClusters }) => String(reclaimedClusters)],
  ['rounds', ({ flushRounds }) => String(flushRounds.led)],
  ['shared', ({ flushRounds }) => String(flushRounds.shared)],
];

/** The counters of an image's queues as lines of text. */
export function statsTable(title: string, { queues, total }: ImageStats): string {
  const shown = queues.length > 1 ? [...queues, total] : queues;
  const rows = [
    columns.map(([heading]) => heading),
    ...shown.map((stats) => columns.map(([, cell]) => cell(stats))),
  ];
  const widths = columns.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, column) => cell.padStart(widths[column])).join('  '),
  );
  return `${title}\n${lines.join('\n')}\n`;
}

function mebibytes(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(1);
}

function bound(microseconds: number): string {
  return microseconds === 0 ? '-' : `<${microseconds}`;
}
