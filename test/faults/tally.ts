/** Counting what a sweep did. */

/** What a sweep has counted. */
export interface Tally {
  runs: number;
  failedRequests: number;
  leaks: number;
  /** Runs that left leaked clusters. */
  leaking: number;
  byRealTool: number;
  /** Runs that have ended before they came to the site. */
  missed: number;
  readonly failures: string[];
}

/** The counts of one sweep: all together, by the kind of operation, and by the kind of fault. */
export interface SweepResult {
  /** Sites of each kind that the workload has. */
  readonly sites: ReadonlyMap<string, number>;
  readonly all: Tally;
  readonly byOperation: ReadonlyMap<string, Tally>;
  readonly byFault: ReadonlyMap<string, Tally>;
}

/** A tally of nothing. */
export function newTally(): Tally {
  return {
    runs: 0,
    failedRequests: 0,
    leaks: 0,
    leaking: 0,
    byRealTool: 0,
    missed: 0,
    failures: [],
  };
}

/** Adds a tally to another. */
export function addTally(sum: Tally, more: Tally): void {
  sum.runs += more.runs;
  sum.failedRequests += more.failedRequests;
  sum.leaks += more.leaks;
  sum.leaking += more.leaking;
  sum.byRealTool += more.byRealTool;
  sum.missed += more.missed;
  sum.failures.push(...more.failures);
}

/** The tally of a name, which is begun if need be. */
export function tallyOf(tallies: Map<string, Tally>, name: string): Tally {
  let tally = tallies.get(name);
  if (tally === undefined) tallies.set(name, (tally = newTally()));
  return tally;
}
