/**
 * Lets each operation of the device fail in turn, in every way, during each workload:
 *
 *     npm run faults -- [--workload NAME] [--site N] [--fault KIND] [--every N] [--seed S]
 *
 * A failure names its workload, site and fault, which repeat it together with the seed.
 */
import { parseArgs } from 'node:util';
import { faultKindNamed, faultKinds } from '../test/faults/fault-kinds.js';
import { type Tally, addTally, newTally, sweepGuest } from '../test/faults/sweep.js';
import { guestWorkloads } from '../test/faults/workloads.js';
import { findTool } from '../test/support/tools.js';

const { values } = parseArgs({
  options: {
    workload: { type: 'string' },
    site: { type: 'string' },
    fault: { type: 'string' },
    every: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    'engine-every': { type: 'string', default: '20' },
    'real-every': { type: 'string', default: '400' },
  },
});
const hasTool = findTool('qemu-img') !== undefined;
const seed = Number(values.seed);
const columns = ['sites', 'runs', 'failed req.', 'leaking', 'leaks', 'by qemu-img', 'failures'];
const mostPrinted = 12;
const faults = values.fault === undefined ? faultKinds : [faultKindNamed(values.fault)];
const chosen = guestWorkloads.filter(
  ({ name }) => values.workload === undefined || name === values.workload,
);
const total = newTally();
const byOperation = new Map<string, { sites: number; tally: Tally }>();
const byFault = new Map<string, Tally>();

if (chosen.length === 0) throw new Error(`there is no workload '${values.workload ?? ''}'`);
if (!hasTool) console.log('qemu-img is missing: nothing is judged by it, no snapshots are made');
console.log(`seed ${seed}`);
printRow('workload', columns);
let allSites = 0;
for (const workload of chosen) {
  if (workload.snapshot === true && !hasTool) continue;
  const result = await sweepGuest(workload, {
    seed,
    faults,
    siteEvery: Number(values.every),
    ...(values.site !== undefined && { site: Number(values.site) }),
    engineEvery: Number(values['engine-every']),
    realEvery: hasTool ? Number(values['real-every']) : 0,
  });
  let sites = 0;
  for (const [kind, count] of result.sites) {
    sites += count;
    const sum = byOperation.get(kind) ?? { sites: 0, tally: newTally() };
    byOperation.set(kind, { sites: sum.sites + count, tally: sum.tally });
  }
  for (const [kind, tally] of result.byOperation) {
    const sum = byOperation.get(kind) ?? { sites: 0, tally: newTally() };
    addTally(sum.tally, tally);
    byOperation.set(kind, sum);
  }
  for (const [kind, tally] of result.byFault) {
    const sum = byFault.get(kind) ?? newTally();
    addTally(sum, tally);
    byFault.set(kind, sum);
  }
  allSites += sites;
  addTally(total, result.all);
  printTally(workload.name, sites, result.all);
  for (const failure of result.all.failures.slice(0, mostPrinted)) console.error(`  ${failure}`);
  if (result.all.failures.length > 0) {
    console.error(
      `  again: npm run faults -- --seed ${seed} --workload '${workload.name}' --site N --fault KIND`,
    );
    process.exitCode = 1;
  }
}
printTally('all', allSites, total);
console.log();
printRow('operation', columns);
for (const [kind, { sites, tally }] of byOperation) printTally(kind, sites, tally);
console.log();
printRow('fault', columns);
for (const [kind, tally] of byFault) printTally(kind, '', tally);

function printTally(name: string, sites: number | string, tally: Tally): void {
  const { runs, failedRequests, leaking, leaks, byRealTool, failures } = tally;
  printRow(name, [sites, runs, failedRequests, leaking, leaks, byRealTool, failures.length]);
}

function printRow(name: string, cells: readonly (string | number)[]): void {
  console.log(name.padEnd(40) + cells.map((cell) => String(cell).padStart(12)).join(''));
}
