/** Rounding is that of C's printf. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toFixedEven, toPrecisionEven } from '../../../src/cli/text/decimal.js';

test('a value in the middle goes to the even neighbour', () => {
  assert.equal(toFixedEven(3.125, 2), '3.12');
  assert.equal(toFixedEven(9.375, 2), '9.38');
  assert.equal(toFixedEven(0.5, 0), '0');
  assert.equal(toPrecisionEven(1.125, 3), '1.12');
  assert.equal(toPrecisionEven(32.25, 3), '32.2');
  assert.equal(toPrecisionEven(1000.5, 3), '1.00e+3');
  assert.equal(toPrecisionEven(1005, 3), '1.00e+3');
});

test('every other value is rounded as usual', () => {
  assert.equal(toFixedEven(1.005, 2), '1.00');
  assert.equal(toFixedEven(66.66666, 2), '66.67');
  assert.equal(toFixedEven(0, 2), '0.00');
  assert.equal(toPrecisionEven(0.9765625, 3), '0.977');
  assert.equal(toPrecisionEven(0, 3), '0.00');
});
