/**
 * Lets each operation of the device fail in turn, in every way, during each workload:
 *
 *     npm run faults -- [--workload NAME] [--site N] [--fault KIND] [--every N] [--seed S]
 *
 * A failure names its workload, site and fault, which repeat it together with the seed.
 */
import { MemoryFiles } from '../test/crash/chain/memory-files.js';
import { chainWorkloads } from '../test/crash/chain/workloads.js';
import { sweepChain } from '../test/faults/chain-sweep.js';
import { chores, sweepChore } from '../test/faults/chores.js';
import { faultKinds } from '../test/faults/fault-kinds.js';
import { sweepProgram } from '../test/faults/program-run.js';
import { programs } from '../test/faults/programs.js';
import { seams } from '../test/faults/seams.js';
import { sweepGuest } from '../test/faults/sweep.js';
import { type SweepResult, type Tally, addTally, newTally, tallyOf } from '../test/faults/tally.js';
import { guestWorkloads } from '../test/faults/workloads.js';
import { findTool } from '../test/support/tools.js';
import { readArguments } from './arguments.js';

const values = readArguments('Makes every operation of a device fail in every way.', {
  workload: { type: 'string' },
  site: { type: 'string' },
  fault: { type: 'string' },
  every: { type: 'string', default: '1' },
  seed: { type: 'string', default: '1' },
  'engine-every': { type: 'string', default: '20' },
  'real-every': { type: 'string', default: '50' },
});
const hasTool = findTool('qemu-img') !== undefined;
const seed = Number(values.seed);
const siteEvery = Number(values.every);
const only = values.site === undefined ? {} : { site: Number(values.site) };
const columns = [
  'sites',
  'runs',
  'failed req.',
  'leaking',
  'leaks',
  'by qemu-img',
  'missed',
  'failures',
];
const mostPrinted = 12;
const total = newTally();
let sites = 0;
const byOperation = new Map<string, { sites: number; readonly tally: Tally }>();
const byFault = new Map<string, Tally>();
const isChosen = ({ name }: { readonly name: string }): boolean =>
  values.workload === undefined || name === values.workload;

if (!hasTool) console.log('qemu-img is missing: nothing is judged by it, no snapshots are made');
console.log(`seed ${seed}`);
printRow('workload', columns);
const faults = faultKinds.filter(({ name }) => values.fault === undefined || name === values.fault);
const realEvery = hasTool ? Number(values['real-every']) : 0;
const engineEvery = Number(values['engine-every']);
const options = { seed, faults, siteEvery, ...only, engineEvery, realEvery };
for (const workload of guestWorkloads.filter(isChosen)) {
  if (faults.length === 0 || (workload.snapshot === true && !hasTool)) continue;
  note(workload.name, [await sweepGuest(workload, options)], '');
}
for (const chore of chores.filter(isChosen)) {
  if (faults.length > 0) note(chore.name, [await sweepChore(chore, options)], '');
}
const chainFiles = new MemoryFiles();
for (const workload of chainWorkloads.filter(isChosen)) {
  if (faults.length > 0) note(workload.name, [await sweepChain(workload, chainFiles, options)], '');
}
for (const program of programs.filter(isChosen)) {
  const results: SweepResult[] = [];
  for (const seam of seams) {
    if (values.fault !== undefined && seam.name !== values.fault) continue;
    results.push(await sweepProgram(program, seam, { seed, siteEvery, ...only }));
  }
  if (results.length > 0) note(program.name, results, 'program: ');
}
printTally('all', sites, total);
console.log();
printRow('operation', columns);
for (const [kind, { sites: count, tally }] of byOperation) printTally(kind, count, tally);
console.log();
printRow('fault', columns);
for (const [kind, tally] of byFault) printTally(kind, '', tally);

/** Adds results up and prints a line. */
function note(name: string, results: readonly SweepResult[], prefix: string): void {
  const sum = newTally();
  let here = 0;
  for (const result of results) {
    for (const [kind, count] of result.sites) {
      here += count;
      sitesOf(prefix + kind).sites += count;
    }
    for (const [kind, tally] of result.byOperation) addTally(sitesOf(prefix + kind).tally, tally);
    for (const [kind, tally] of result.byFault) addTally(tallyOf(byFault, kind), tally);
    addTally(sum, result.all);
  }
  sites += here;
  addTally(total, sum);
  printTally(name, here, sum);
  for (const failure of sum.failures.slice(0, mostPrinted)) console.error(`  ${failure}`);
  if (sum.failures.length === 0) return;
  const again = `npm run faults -- --seed ${seed} --workload '${name}' --site N --fault KIND`;
  console.error(`  again: ${again}`);
  process.exitCode = 1;
}

function sitesOf(kind: string): { sites: number; readonly tally: Tally } {
  let found = byOperation.get(kind);
  if (found === undefined) byOperation.set(kind, (found = { sites: 0, tally: newTally() }));
  return found;
}

function printTally(name: string, sites: number | string, tally: Tally): void {
  const { runs, failedRequests, leaking, leaks, byRealTool, missed, failures } = tally;
  const cells = [sites, runs, failedRequests, leaking, leaks, byRealTool, missed, failures.length];
  printRow(name, cells);
}

function printRow(name: string, cells: readonly (string | number)[]): void {
  console.log(name.padEnd(40) + cells.map((cell) => String(cell).padStart(12)).join(''));
}
