/** Power cuts at moments of small runs; `npm run crash` examines every moment of many more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findTool, needsTool } from '../support/tools.js';
import { examine } from './examination.js';
import { type Recording, record } from './recording.js';
import { workloadNamed, workloads } from './workloads.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
/** What all workloads together have to reach. */
const fewestStates = 5000;
let states = 0;

for (const workload of workloads) {
  test(`a power cut during ${workload.name} leaves nothing worse than leaks`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const outcome = await examine(await record(workload, seed), {
      engineEvery: 50,
      realEvery: 500,
      // A repair is over after a few I/Os.
      momentEvery: workload.damage === undefined ? 14 : 1,
    });
    const { failures, ios, enumerated, distinct, byEngine, byRealTool } = outcome;
    states += distinct;
    t.diagnostic(
      `seed ${seed}: ${ios} I/Os, ${enumerated} states made, ${distinct} distinct, ` +
        `${byEngine} opened by the engine, ${byRealTool} checked by qemu-img`,
    );
    assert.deepEqual(failures, []);
  });
}

test('enough states were examined', (t) => {
  if (findTool('qemu-img') === undefined) {
    t.skip('nothing was examined');
    return;
  }
  t.diagnostic(`${states} distinct states`);
  assert.ok(states >= fewestStates, `${states} states`);
});

/** Whether some run of a workload does what it is there for. */
async function doesSomewhere(name: string, does: (recording: Recording) => boolean): Promise<void> {
  for (let run = 1; run <= 8; run++) {
    if (does(await record(workloadNamed(name), run))) return;
  }
  assert.fail(`no run of '${name}' does what it is there for`);
}

test('workloads do what they are there for', async () => {
  await doesSomewhere('discard and reuse', ({ file }) =>
    file.log.changes.some(
      (punch, index, all) =>
        punch.kind === 'discard' &&
        all.slice(index).some(({ kind, offset }) => kind === 'write' && offset === punch.offset),
    ),
  );
  const writesHeader = ({ file }: Recording): boolean =>
    file.log.changes.some(({ kind, offset }) => kind === 'write' && offset === 0);
  await doesSomewhere('a longer refcount table', writesHeader);
  await doesSomewhere('lazy refcounts', writesHeader);
  await doesSomewhere('an external data file', ({ dataFile }) =>
    dataFile!.log.barriers.some(({ completed }) => completed !== Infinity),
  );
});
