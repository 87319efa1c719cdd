/** Goes through the sites of a workload, with every way to fail at each, and counts. */
import { makeStart } from '../crash/recording.js';
import type { FaultKind } from './fault-kinds.js';
import { runSite } from './site-run.js';
import { type SweepResult, type Tally, addTally, newTally, tallyOf } from './tally.js';
import type { FaultedWorkload } from './workloads.js';

/** How a sweep goes. */
export interface SweepOptions {
  readonly seed: number;
  readonly faults: readonly FaultKind[];
  /** Tries one site of so many; each by default. */
  readonly siteEvery?: number;
  /** Tries this site alone. */
  readonly site?: number;
  /** Every so many runs the engine checks the image left behind, and the real tool; 0 for never. */
  readonly engineEvery: number;
  readonly realEvery: number;
}

/** Sweeps a guest's workload. */
export async function sweepGuest(
  workload: FaultedWorkload,
  options: SweepOptions,
): Promise<SweepResult> {
  const { seed, siteEvery = 1, engineEvery, realEvery } = options;
  const start = await makeStart(workload, seed);
  const hasTool = realEvery > 0;
  const [first] = options.faults;
  const never = { engine: engineEvery > 0, real: hasTool, hasTool };
  const fine = await runSite(workload, start, seed, 0, first, never);
  const result = emptyResult(fine.operations);
  for (const problem of fine.problems) result.all.failures.push(`without a fault: ${problem}`);
  if (fine.leaks > 0) result.all.failures.push(`without a fault: ${fine.leaks} leaks`);
  if (result.all.failures.length > 0) return result;
  let runs = 0;
  for (const [index, operation] of fine.operations.entries()) {
    const site = index + 1;
    if (options.site !== undefined ? site !== options.site : site % siteEvery !== seed % siteEvery)
      continue;
    for (const fault of options.faults) {
      if (fault.kinds?.includes(operation) === false) continue;
      runs++;
      const outcome = await runSite(workload, start, seed, site, fault, {
        engine: engineEvery > 0 && runs % engineEvery === 0,
        real: hasTool && runs % realEvery === 0,
        hasTool,
      });
      const kind = outcome.struck?.kind ?? operation;
      const tally: Tally = {
        runs: 1,
        failedRequests: outcome.failedRequests,
        leaks: outcome.leaks,
        leaking: outcome.leaks > 0 ? 1 : 0,
        byRealTool: outcome.real ? 1 : 0,
        missed: 0,
        failures: outcome.problems.map(
          (problem) => `site ${site} (${kind}, ${outcome.phase}), ${fault.name}: ${problem}`,
        ),
      };
      if (outcome.struck === undefined) tally.missed = 1;
      addTally(result.all, tally);
      addTally(tallyOf(result.byOperation, kind), tally);
      addTally(tallyOf(result.byFault, fault.name), tally);
    }
  }
  return result;
}

interface GrowingResult extends SweepResult {
  readonly byOperation: Map<string, Tally>;
  readonly byFault: Map<string, Tally>;
}

/** The counts before anything was run. @param operations of the workload */
export function emptyResult(operations: readonly string[]): GrowingResult {
  const sites = new Map<string, number>();
  for (const kind of operations) sites.set(kind, (sites.get(kind) ?? 0) + 1);
  return { sites, all: newTally(), byOperation: new Map(), byFault: new Map() };
}
