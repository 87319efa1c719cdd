/** How the tests of models ask the explorer, and what they print of its answer. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type FailureKind, type Model, explore } from './explorer.js';

/** Rounds that programs take more than they do by default: 0, or `COWHERD_MODEL_DEPTH`. */
export const extraRounds = Number(process.env['COWHERD_MODEL_DEPTH'] ?? 0);

/** A test that nothing goes wrong in any interleaving. */
export function testModel(name: string, model: Model): void {
  test(name, async (t) => {
    const { threads, states, interleavings, failure } = await explore(model);
    assert.equal(failure && [failure.message, ...failure.schedule].join('\n'), undefined);
    t.diagnostic(`${threads} threads, ${states} states, ${interleavings} interleavings`);
  });
}

/** A test that the explorer finds what is wrong with a variant. */
export function testWrongVariant(name: string, kind: FailureKind, model: Model): void {
  test(`found: ${name}`, async (t) => {
    const { states, failure } = await explore(model);
    assert.equal(failure?.kind, kind, failure?.message ?? 'nothing was found');
    report(t, states, failure.message, failure.schedule);
  });
}

function report(
  t: TestContext,
  states: number,
  message: string,
  schedule: readonly string[],
): void {
  const [what] = message.split('\n');
  t.diagnostic(`found: ${what}; after ${schedule.length} steps, within ${states} states`);
  if (process.env['COWHERD_MODEL_SCHEDULES'] === undefined) return;
  for (const step of schedule) t.diagnostic(step);
}
