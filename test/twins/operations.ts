/** Every operation, and how often it is drawn. */
import fc from 'fast-check';
import { changes } from './changes.js';
import { copies } from './copies.js';
import type { Geometry } from './geometry.js';
import { reports } from './reports.js';
import { requests } from './requests.js';
import type { Step } from './step.js';

/** Those that are drawn more often than others, or less. */
const weights: Readonly<Record<string, number>> = {
  'io write': 10,
  'io write -z': 5,
  'io write -zu': 5,
  'io discard': 5,
  'io write -c': 5,
  'io mixed': 5,
  'snapshot -c': 6,
  'bitmap add': 4,
  amend: 5,
  resize: 6,
  commit: 3,
  rebase: 4,
  convert: 5,
};

/** Sequences of so many steps on average. */
export function stepLists(geometry: Geometry, average: number): fc.Arbitrary<readonly Step[]> {
  return fc.array(steps(geometry), { minLength: 1, maxLength: 2 * average, size: 'max' });
}

function steps(geometry: Geometry): fc.Arbitrary<Step> {
  const all = {
    ...requests(geometry),
    ...changes(geometry),
    ...copies(geometry),
    ...reports(geometry),
  };
  const drawn = Object.entries(all).map(([name, arbitrary]) => ({
    weight: weights[name] ?? 2,
    arbitrary,
  }));
  return fc.oneof(...drawn);
}
