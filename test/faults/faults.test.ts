/** Some sites of every workload, with every way to fail; `npm run faults` tries all of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addon } from '../../src/native/addon.js';
import { findTool, needsTool } from '../support/tools.js';
import { chores, sweepChore } from './chores.js';
import { faultKinds } from './fault-kinds.js';
import { sweepProgram } from './program-run.js';
import { programs } from './programs.js';
import { seams } from './seams.js';
import { sweepGuest } from './sweep.js';
import { type SweepResult, type Tally, addTally, newTally, tallyOf } from './tally.js';
import { guestWorkloads } from './workloads.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? 1);
/** About one site in so many is tried. */
const guestSiteEvery = 19;
const programSiteEvery = 11;
const all = newTally();
const byOperation = new Map<string, Tally>();
const byFault = new Map<string, Tally>();

function note({ all: sum, byOperation: operations, byFault: faults }: SweepResult): void {
  addTally(all, sum);
  for (const [kind, tally] of operations) addTally(tallyOf(byOperation, kind), tally);
  for (const [kind, tally] of faults) addTally(tallyOf(byFault, kind), tally);
}

for (const workload of guestWorkloads) {
  test(`a failing device during ${workload.name}`, async (t) => {
    if (workload.snapshot === true && !needsTool(t, 'qemu-img')) return;
    const result = await sweepGuest(workload, {
      seed,
      faults: faultKinds,
      siteEvery: guestSiteEvery,
      engineEvery: 25,
      realEvery: findTool('qemu-img') === undefined ? 0 : 100,
    });
    note(result);
    const { runs, failedRequests, leaking, failures } = result.all;
    t.diagnostic(
      `seed ${seed}: ${runs} runs, ${failedRequests} failed requests, ${leaking} images with leaks`,
    );
    assert.deepEqual(failures, []);
  });
}

for (const chore of chores) {
  test(`a failing device during ${chore.name}`, async (t) => {
    const realEvery = findTool('qemu-img') === undefined ? 0 : 50;
    const result = await sweepChore(chore, {
      seed,
      faults: faultKinds,
      siteEvery: 3,
      engineEvery: 1,
      realEvery,
    });
    note(result);
    t.diagnostic(`${result.all.runs} runs`);
    assert.deepEqual(result.all.failures, []);
  });
}

for (const program of programs) {
  test(`refusals during ${program.name}`, async (t) => {
    if (addon === undefined) {
      t.skip('there is no addon to refuse anything');
      return;
    }
    let runs = 0;
    for (const seam of seams) {
      const result = await sweepProgram(program, seam, { seed, siteEvery: programSiteEvery });
      note(result);
      runs += result.all.runs;
      assert.deepEqual(result.all.failures, []);
    }
    t.diagnostic(`${runs} runs`);
  });
}

test('shared memory refused anywhere during a repair', async (t) => {
  if (addon === undefined) {
    t.skip('there is no addon to refuse anything');
    return;
  }
  const repairing = programs.find(({ name }) => name === 'repairing')!;
  const sharedMemory = seams.find(({ name }) => name === 'shared memory')!;
  const result = await sweepProgram(repairing, sharedMemory, { seed });
  assert.deepEqual(result.all.failures, []);
  assert.ok(result.all.runs > 10, `${result.all.runs} runs`);
});

test('faults of every kind were tried', (t) => {
  t.diagnostic([...byOperation].map(([kind, { runs }]) => `${kind}: ${runs}`).join(', '));
  for (const kind of ['read', 'write', 'flush', 'truncate', 'size', 'discard', 'close']) {
    assert.ok((byOperation.get(kind)?.runs ?? 0) > 0, `no ${kind} has failed`);
  }
  for (const { name } of faultKinds) assert.ok((byFault.get(name)?.runs ?? 0) > 0, name);
  assert.ok(all.failedRequests > 0 && all.runs > 500, `${all.runs} runs`);
});
