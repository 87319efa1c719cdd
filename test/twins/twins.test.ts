/**
 * Images to which both programs do the same stay the same. `npm run twins` does that for longer.
 * COWHERD_TWINS_SECONDS says for how long images are begun here.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { needsTool } from '../support/tools.js';
import { leavePeer } from './peer.js';
import { TwinTally } from './tally.js';
import { tryImage } from './trial.js';

const seconds = Number(process.env['COWHERD_TWINS_SECONDS'] ?? 14);
const firstSeed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
/** Steps of an image on average: few, so that there are several images. */
const length = 20;
/** For how long the fewest steps that differ are looked for. */
const shrinkSeconds = 30;

after(leavePeer);

test('random steps on twin images', { timeout: 300_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  t.diagnostic(`seeds from ${firstSeed}`);
  const tally = new TwinTally();
  const end = Date.now() + seconds * 1000;
  for (let seed = firstSeed; Date.now() < end; seed++) {
    const difference = await tryImage({ seed, length }, tally, shrinkSeconds);
    assert.ok(difference === undefined, difference);
  }
  for (const line of tally.lines()) t.diagnostic(line);
});
