/** What a throttle lets through, and what it makes wait. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedWords } from '../../src/engine/words/shared-words.js';
import { Throttle, type ThrottleOptions, throttleWords } from '../../src/engine/throttle.js';

function newThrottle(options: ThrottleOptions, clock: { now: number }): Throttle {
  const words = new Int32Array(new SharedArrayBuffer(throttleWords * 4));
  return new Throttle(new SharedWords(words), options, () => clock.now);
}

test('whoever comes after waits for what was spent before', () => {
  const clock = { now: 1000 };
  const throttle = newThrottle({ bytesPerSecond: 1000, bytesBurst: 0 }, clock);
  assert.equal(throttle.spend(500), 0);
  assert.equal(throttle.spend(500), 500);
  clock.now += 1500;
  assert.equal(throttle.spend(1), 0);
});

test('a debt of more than an hour is not forgiven: it counts as an hour', () => {
  const clock = { now: 1000 };
  const throttle = newThrottle({ bytesPerSecond: 1000, bytesBurst: 0 }, clock);
  assert.equal(throttle.spend(8 * 1024 * 1024), 0);
  for (let request = 0; request < 3; request++) {
    assert.equal(throttle.spend(1024), 3_600_000 - 1);
  }
  clock.now += 3_600_000;
  assert.equal(throttle.spend(1), 0);
});

test('a time that has wrapped is no debt', () => {
  const clock = { now: 1000 };
  const throttle = newThrottle({ operationsPerSecond: 10, operationsBurst: 0 }, clock);
  throttle.spend(0);
  clock.now += 2 ** 31;
  assert.equal(throttle.spend(0), 0);
});
