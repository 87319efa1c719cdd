/**
 * Real threads on one image, judged by the real tools. `npm run stress` does the same for longer.
 * COWHERD_STRESS_SECONDS says for how long each number of queues is tried here.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { needsTool } from '../support/tools.js';
import { runRound } from './round.js';
import { scenarioOf } from './scenario.js';
import { StressTally } from './tally.js';

const seconds = Number(process.env['COWHERD_STRESS_SECONDS'] ?? 38);
const fixedSeed = process.env['COWHERD_TEST_SEED'];

for (const threads of [2, 8]) {
  test(`${threads} threads leave what some order of their writes could have left`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const end = Date.now() + seconds * 1000;
    const firstSeed = Number(fixedSeed ?? Date.now() % 1_000_000_007);
    t.diagnostic(`seeds from ${firstSeed}`);
    const tally = new StressTally();
    for (let seed = firstSeed; Date.now() < end; seed++) {
      const scenario = scenarioOf(seed, threads);
      const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-stress-'));
      try {
        tally.add(await runRound(scenario, folder));
      } catch (error) {
        t.diagnostic(`seed ${seed} failed: ${JSON.stringify(scenario)}`);
        throw error;
      } finally {
        await rm(folder, { recursive: true });
      }
    }
    for (const line of tally.lines()) t.diagnostic(line);
    for (const [name, sum] of Object.entries(tally.sums)) {
      assert.ok(sum > 0 || seconds < 20, `nothing was counted as ${name}`);
    }
  });
}
