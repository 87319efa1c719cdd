/** Adds up what the rounds of a stress run did. */
import type { RoundResult } from './round.js';

/** The sums; each of them shows that something was exercised at all. */
export class StressTally {
  rounds = 0;
  readonly sums: Record<string, number> = {};

  add({ operations, stats }: RoundResult): void {
    this.rounds++;
    const counted = {
      operations,
      'claims waited for': stats.waits.claim,
      'loads waited for': stats.waits.load,
      'slices loaded': stats.cache.loads,
      'slices evicted': stats.cache.evictions,
      'clusters allocated': stats.allocatedClusters,
      'clusters reclaimed': stats.reclaimedClusters,
      'flush rounds led': stats.flushRounds.led,
      'flush rounds shared': stats.flushRounds.shared,
    };
    for (const [name, count] of Object.entries(counted)) {
      this.sums[name] = (this.sums[name] ?? 0) + count;
    }
  }

  lines(): string[] {
    return [
      `${'rounds'.padEnd(22)}${this.rounds}`,
      ...Object.entries(this.sums).map(([name, sum]) => `${name.padEnd(22)}${sum}`),
    ];
  }
}
