/**
 * Any damage: fixtures with a few fields changed at random are checked and repaired as the real tool
 * does it.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { isQcow2 } from '../../../../src/format/qcow2/layout/header.js';
import { type Mutant, applyMutant, mutate } from '../../../fuzz/mutation.js';
import { Random } from '../../../stress/random.js';
import { runCowherd, runQemuImg } from '../../../support/both-tools.js';
import { fixtures, unpackFixtures } from '../../../support/fixtures.js';
import { type RunResult, needsTool } from '../../../support/tools.js';

/**
 * The same images every time, as the two programs may still differ in what nobody has thought of yet;
 * other seeds look for that.
 */
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? 1);
const images = Number(process.env['COWHERD_TEST_RUNS'] ?? 150);
const largestBytes = 4 * 1024 * 1024;

/**
 * Where the real tool gives a check up although only its own state is in the way, grows the file to
 * where a damaged pointer leads, or looks at an overlap before it repairs: `corruptions.ts` has each of
 * these by hand, and what is done here instead.
 */
const otherwise =
  /could not resize|Could not resize|Preventing invalid write|Can't get refcount|Marking image as corrupt|Image is corrupt|is outside image|ERROR writing refblock/;

/** The lines of what was found, in whichever order they were. */
function findings({ stderr }: RunResult): readonly string[] {
  return stderr.split('\n').sort();
}

test('random damage is found and repaired as the real tool does it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}`);
  const folder = await unpackFixtures(t);
  const originals = new Map<string, Uint8Array>();
  for (const { file } of fixtures) {
    const bytes = await readFile(path.join(folder, file));
    // The real tool does not come to an end with a chain that does not.
    const isUnfit = file.includes('loop') || file.includes('/');
    if (isQcow2(bytes) && bytes.length <= largestBytes && !isUnfit) originals.set(file, bytes);
  }
  const names = [...originals.keys()];
  const random = new Random(seed);
  const tally = { refused: 0, equal: 0, otherwise: 0, repaired: 0 };
  for (let index = 0; index < images; index++) {
    const name = random.pick(names);
    const original = originals.get(name)!;
    const mutant = mutate(name, original, random);
    await compareChecks(folder, mutant, applyMutant(original, mutant), tally);
  }
  t.diagnostic(JSON.stringify(tally));
  // Of a few images all may be beyond opening.
  if (images >= 100) assert.ok(tally.equal > 0 && tally.repaired > 0);
});

async function compareChecks(
  folder: string,
  mutant: Mutant,
  bytes: Uint8Array,
  tally: { refused: number; equal: number; otherwise: number; repaired: number },
): Promise<void> {
  const label = `seed ${seed}: ${JSON.stringify(mutant)}`;
  const file = path.join(folder, 'mutant.qcow2');
  const words = ['check', '--output=json', '-f', 'qcow2', 'mutant.qcow2'];
  await writeFile(file, bytes);
  const theirs = await runQemuImg(words, folder);
  const ours = await runCowherd(words, folder);
  if (theirs.stderr.includes('Could not open') || ours.stderr.includes('Could not open')) {
    // Ours refuses offsets that no number holds, which are beyond any file.
    const isFar = ours.stderr.includes('beyond what can be addressed');
    assert.ok(isFar || (theirs.code === 1 && ours.code === 1), `${label}\n${ours.stderr}`);
    tally.refused++;
    return;
  }
  if (otherwise.test(theirs.stderr)) {
    tally.otherwise++;
  } else {
    assert.deepEqual([ours.code, ours.stdout], [theirs.code, theirs.stdout], label);
    assert.deepEqual(findings(ours), findings(theirs), label);
    tally.equal++;
  }
  await writeFile(file, bytes);
  const repairing = ['check', '-r', 'all', '-f', 'qcow2', 'mutant.qcow2'];
  const theirRepair = await runQemuImg(repairing, folder);
  await writeFile(file, bytes);
  const { code, stderr } = await runCowherd(repairing, folder);
  // Unknown autoclear bits make the real tool write a header without the snapshots it has yet to read.
  const forgets = stderr.includes('snapshot table');
  if (theirRepair.code === 0 && !otherwise.test(theirRepair.stderr) && !forgets) {
    assert.equal(code, 0, `${label}\n${stderr}`);
  }
  if (code !== 0) return;
  const again = await runQemuImg(['check', '-f', 'qcow2', 'mutant.qcow2'], folder);
  assert.equal(again.code, 0, `${label}, after a repair\n${again.stdout}${again.stderr}`);
  tally.repaired++;
}
