/** Commits and rebases that are cut off leave the disk that was there, and can be done again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { examineChain } from './examination.js';
import { MemoryFiles } from './memory-files.js';
import { chainWorkloads } from './workloads.js';

const files = new MemoryFiles();
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 2 ** 30);
const states = Number(process.env['COWHERD_CRASH_STATES'] ?? 120);

let judgedInAll = 0;

for (const workload of chainWorkloads) {
  test(workload.name, async (t) => {
    t.diagnostic(`seed ${seed}`);
    const { judged, failures } = await examineChain(workload, files, {
      seed,
      states,
      againEvery: 12,
    });
    t.diagnostic(`${judged} states`);
    assert.deepEqual(failures, []);
    judgedInAll += judged;
  });
}

test('there was something to cut off', () => {
  // What is drawn may leave one of them little to do.
  assert.ok(judgedInAll > 30 * chainWorkloads.length, `${judgedInAll} states`);
});

test('a device that ignores barriers is found', async () => {
  const [, workload] = chainWorkloads;
  const { failures } = await examineChain(workload, files, {
    seed: 1,
    states: 400,
    againEvery: Infinity,
    withoutBarriers: true,
  });
  assert.ok(failures.length > 0);
});
