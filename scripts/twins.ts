/**
 * Does the same at random to twin images, by this program and by QEMU's, and compares after each step:
 *
 *     npm run twins -- [--steps N] [--images N] [--minutes N] [--length N] [--seed S] [--shrink SECONDS]
 *
 * It ends with the first of the three bounds, or with Ctrl-C after the image that is being tried. Images have some
 * `--length` steps each, and a seed of their own: one that came out different is repeated with `--seed` and
 * `--images 1`, and told with the fewest steps that were found in some seconds.
 */
import { leavePeer } from '../test/twins/peer.js';
import { TwinTally } from '../test/twins/tally.js';
import { tryImage } from '../test/twins/trial.js';
import { readArguments } from './arguments.js';

const values = readArguments('Does the same to twin images by both programs, and compares.', {
  steps: { type: 'string', default: 'Infinity' },
  images: { type: 'string', default: 'Infinity' },
  minutes: { type: 'string', default: '1' },
  length: { type: 'string', default: '50' },
  seed: { type: 'string' },
  shrink: { type: 'string', default: '60' },
});
/** Images between two lines of what was done so far. */
const imagesPerLine = 50;
const firstSeed = Number(values.seed ?? Date.now() % 1_000_000_007);
const tally = new TwinTally();
let end = Date.now() + Number(values.minutes) * 60_000;
process.once('SIGINT', () => {
  end = 0;
});
console.log(`seeds from ${firstSeed}`);
for (let tried = 0; tried < Number(values.images); tried++) {
  if (tally.steps >= Number(values.steps) || Date.now() >= end) break;
  const trial = { seed: firstSeed + tried, length: Number(values.length) };
  const difference = await tryImage(trial, tally, Number(values.shrink));
  if (difference !== undefined) {
    console.error(difference);
    process.exitCode = 1;
  }
  if (tried % imagesPerLine === imagesPerLine - 1) console.log(tally.sum());
}
leavePeer();
for (const line of tally.lines()) console.log(line);
