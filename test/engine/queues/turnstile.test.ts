/** Turns are used in the order in which they were taken. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Turnstile } from '../../../src/engine/queues/turnstile.js';

test('a turn begins when all before it have ended, in whatever order they end', async () => {
  const turnstile = new Turnstile();
  const turns = ['one', 'two', 'three'].map((name) => turnstile.take(() => name));
  const begun: number[] = [];
  turns.forEach(({ begins }, index) => void begins.then(() => begun.push(index)));
  await setImmediate();
  assert.deepEqual(begun, [0]);
  turns[1].end();
  await setImmediate();
  assert.deepEqual(begun, [0]);
  assert.equal(turnstile.isIdle, false);
  turns[0].end();
  turns[0].end();
  await setImmediate();
  assert.deepEqual(begun, [0, 1, 2]);
  assert.equal(turnstile.isIdle, false);
  turns[2].end();
  await setImmediate();
  assert.equal(turnstile.isIdle, true);
});
