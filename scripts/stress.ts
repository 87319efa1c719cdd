/**
 * Stresses the engine with real threads for as long as wanted:
 *
 *     npm run stress -- [--minutes N] [--queues N] [--seed S]
 *
 * Each round has a seed of its own; a failing one is repeated with `--seed` alone.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { StressTally } from '../test/stress/tally.js';
import { runRound } from '../test/stress/round.js';
import { scenarioOf } from '../test/stress/scenario.js';
import { readArguments } from './arguments.js';

const values = readArguments('Lets threads loose on one image, round by round.', {
  minutes: { type: 'string', default: '1' },
  queues: { type: 'string', default: '2' },
  seed: { type: 'string' },
});
const end = Date.now() + Number(values.minutes) * 60_000;
const threads = Number(values.queues);
const firstSeed = Number(values.seed ?? Date.now() % 1_000_000_007);
console.log(`${threads} queues, seeds from ${firstSeed}`);
const tally = new StressTally();
for (let seed = firstSeed; Date.now() < end || seed === firstSeed; seed++) {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-stress-'));
  try {
    tally.add(await runRound(scenarioOf(seed, threads), folder));
    await rm(folder, { recursive: true });
  } catch (error) {
    console.error(`seed ${seed} with ${threads} queues failed; its files are in ${folder}`);
    console.error(JSON.stringify(scenarioOf(seed, threads)));
    throw error;
  }
}
console.log('no failure');
for (const line of tally.lines()) console.log(line);
