/** Power cuts at every moment of small runs; `npm run crash` examines many more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { needsTool } from '../support/tools.js';
import { examine } from './examination.js';
import { record } from './recording.js';
import { workloads } from './workloads.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

for (const workload of workloads) {
  test(`a power cut during ${workload.name} leaves nothing worse than leaks`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const recording = await record(workload, seed);
    const outcome = await examine(recording, { engineEvery: 100, realEvery: 500, mostStates: 800 });
    const { failures, ...counts } = outcome;
    t.diagnostic(`seed ${seed}: ${JSON.stringify(counts)}`);
    assert.deepEqual(failures, []);
  });
}
