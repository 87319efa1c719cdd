/** Commits and rebases whose device fails say so, leave the disk that was there, and can be done again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryFiles } from '../crash/chain/memory-files.js';
import { chainWorkloads } from '../crash/chain/workloads.js';
import { sweepChain } from './chain-sweep.js';
import { faultKinds } from './fault-kinds.js';

const files = new MemoryFiles();
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 2 ** 30);
const siteEvery = Number(process.env['COWHERD_FAULT_SITES'] ?? 9);

for (const workload of chainWorkloads) {
  test(workload.name, async (t) => {
    t.diagnostic(`seed ${seed}`);
    const { all } = await sweepChain(workload, files, { seed, siteEvery, faults: faultKinds });
    t.diagnostic(`${all.runs} runs`);
    assert.deepEqual(all.failures, []);
    assert.ok(all.runs > 20);
  });
}
