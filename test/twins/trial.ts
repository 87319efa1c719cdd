/** Tries one image by its seed, and finds the least that still comes out different. */
import fc from 'fast-check';
import { geometries } from './geometry.js';
import { stepLists } from './operations.js';
import { runRound } from './round.js';
import { TwinTally } from './tally.js';

/** Which image is tried. */
export interface Trial {
  readonly seed: number;
  /** Steps on average. */
  readonly length: number;
}

/**
 * Runs the round of a seed.
 *
 * @param tally where it is counted; what is tried to make it shorter is not
 * @param seconds for how long a shorter round is looked for
 * @returns what was different, if anything was
 */
export async function tryImage(
  { seed, length }: Trial,
  tally: TwinTally,
  seconds: number,
): Promise<string | undefined> {
  let counted: TwinTally | undefined = tally;
  let end = Infinity;
  const [geometry] = fc.sample(geometries, { seed, numRuns: 1 });
  const property = fc.asyncProperty(stepLists(geometry, length), async (steps) => {
    if (Date.now() > end) return;
    const here = counted ?? new TwinTally();
    counted = undefined;
    try {
      await runRound({ geometry, steps }, here);
    } finally {
      if (end === Infinity) end = Date.now() + seconds * 1000;
    }
  });
  const details = await fc.check(property, { seed, numRuns: 1, unbiased: true });
  if (details.counterexample === null) return undefined;
  const [steps] = details.counterexample;
  return [
    `seed ${seed} (--seed ${seed} --images 1 --length ${length}):`,
    JSON.stringify(geometry),
    ...steps.map(({ words }) => `  ${words.map(quoted).join(' ')}`),
    details.errorInstance instanceof Error ? details.errorInstance.message : '',
  ].join('\n');
}

function quoted(word: string): string {
  return /^[\w./=,+-]+$/.test(word) ? word : `'${word}'`;
}
