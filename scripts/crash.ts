/**
 * Cuts the power at every moment of recorded workloads and judges what each cut could leave:
 *
 *     npm run crash -- [--seconds N] [--states N] [--workload NAME] [--seed S]
 *
 * Each workload is recorded with one seed after the other until so many distinct states have been
 * examined, or its share of the time is over. A failure names its workload and seed, and
 * `--workload` and `--seed` repeat it.
 */
import { examineChain } from '../test/crash/chain/examination.js';
import { MemoryFiles } from '../test/crash/chain/memory-files.js';
import { chainWorkloads } from '../test/crash/chain/workloads.js';
import { type ExaminationOptions, type Outcome, examine } from '../test/crash/examination.js';
import { examineMapped } from '../test/crash/mapped/examination.js';
import { recordMapped, withImage } from '../test/crash/mapped/recording.js';
import { mappedWorkloads } from '../test/crash/mapped/workloads.js';
import { record } from '../test/crash/recording.js';
import { workloads } from '../test/crash/workloads.js';
import { findTool } from '../test/support/tools.js';
import { readArguments } from './arguments.js';

const values = readArguments(
  'Examines what a power cut at any moment of recorded runs could leave.',
  {
    seconds: { type: 'string', default: '1200' },
    states: { type: 'string', default: '15000' },
    workload: { type: 'string' },
    seed: { type: 'string' },
    'engine-every': { type: 'string', default: '10' },
    'real-every': { type: 'string', default: '1000' },
  },
);

/** A workload, and how one run of it is examined. */
interface Subject {
  readonly name: string;
  /** Whether it is made by the real tool. */
  readonly needsTool: boolean;
  readonly run: (seed: number, options: ExaminationOptions) => Promise<Outcome>;
}

const chainFiles = new MemoryFiles();
/** States of a chain that are judged of one run, and in every so many of them the work is done again. */
const chainStates = { states: 400, againEvery: 12 };
const subjects: readonly Subject[] = [
  ...workloads.map((workload) => ({
    name: workload.name,
    needsTool: workload.snapshot === true,
    run: async (seed: number, options: ExaminationOptions) =>
      examine(await record(workload, seed), options),
  })),
  ...mappedWorkloads.map((workload) => ({
    name: workload.name,
    needsTool: false,
    run: (seed: number, options: ExaminationOptions) =>
      withImage(workload, async (filename) =>
        examineMapped(await recordMapped(workload, seed, filename), options),
      ),
  })),
  ...chainWorkloads.map((workload) => ({
    name: workload.name,
    needsTool: false,
    run: async (seed: number): Promise<Outcome> => {
      const { ios, enumerated, judged, failures } = await examineChain(workload, chainFiles, {
        seed,
        ...chainStates,
      });
      const distinct = judged;
      return {
        ios,
        enumerated,
        distinct,
        byEngine: judged,
        byRealTool: 0,
        failures: [...failures],
      };
    },
  })),
];
const chosen = subjects.filter(({ name }) => [undefined, name].includes(values.workload));
if (chosen.length === 0) throw new Error(`there is no workload '${values.workload ?? ''}'`);
const hasTool = findTool('qemu-img') !== undefined;
const firstSeed = Number(values.seed ?? Date.now() % 1_000_000_007);
const end = Date.now() + Number(values.seconds) * 1000;
const columns = ['runs', 'I/Os', 'enumerated', 'states', 'by engine', 'by qemu-img', 'failures'];
const total: number[] = columns.map(() => 0);

if (!hasTool) console.log('qemu-img is missing: nothing is judged by it, no snapshots are made');
console.log(`seeds from ${firstSeed}`);
printRow('workload', columns);
for (const [index, { name, needsTool, run }] of chosen.entries()) {
  if (needsTool && !hasTool) continue;
  const share = Date.now() + (end - Date.now()) / (chosen.length - index);
  const sums: number[] = columns.map(() => 0);
  const failures: string[] = [];
  const wanted = Number(values.states);
  for (let seed = firstSeed; seed === firstSeed || Date.now() < share; seed++) {
    const outcome: Outcome = await run(seed, {
      engineEvery: Number(values['engine-every']),
      realEvery: hasTool ? Number(values['real-every']) : 0,
      deadlineMs: share,
    });
    const { ios, enumerated, distinct, byEngine, byRealTool } = outcome;
    const counts = [1, ios, enumerated, distinct, byEngine, byRealTool, outcome.failures.length];
    for (const [column, count] of counts.entries()) sums[column] += count;
    failures.push(...outcome.failures);
    if (outcome.failures.length > 0 || sums[3] >= wanted) break;
  }
  for (const [column, sum] of sums.entries()) total[column] += sum;
  printRow(name, sums);
  for (const failure of failures) console.error(`  ${failure}`);
  if (failures.length > 0) {
    const seed = firstSeed + sums[0] - 1;
    console.error(`  again: npm run crash -- --workload '${name}' --seed ${seed}`);
    process.exitCode = 1;
  }
}
printRow('all', total);

function printRow(name: string, cells: readonly (string | number)[]): void {
  console.log(name.padEnd(40) + cells.map((cell) => String(cell).padStart(12)).join(''));
}
