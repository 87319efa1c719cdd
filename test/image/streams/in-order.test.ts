/** Work side by side, results in order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inOrder } from '../../../src/image/streams/in-order.js';

test('results come in the order of the items, with so much work at a time', async () => {
  let underWay = 0;
  let most = 0;
  const work = async (item: number): Promise<number> => {
    most = Math.max(most, ++underWay);
    await sleep((item * 7) % 5);
    underWay -= 1;
    return item * 2;
  };
  const results: number[] = [];
  for await (const result of inOrder([1, 2, 3, 4, 5, 6, 7, 8].values(), 3, work)) {
    results.push(result);
  }
  assert.deepEqual(results, [2, 4, 6, 8, 10, 12, 14, 16]);
  assert.equal(most, 3);
});

test('a failure is met in its turn, and what is left has ended then', async () => {
  let underWay = 0;
  const work = async (item: number): Promise<number> => {
    underWay += 1;
    await sleep(item === 2 ? 0 : 5);
    underWay -= 1;
    if (item === 2) throw new Error('the second');
    return item;
  };
  const results: number[] = [];
  await assert.rejects(async () => {
    for await (const result of inOrder([1, 2, 3, 4], 4, work)) results.push(result);
  }, /the second/);
  assert.deepEqual([results, underWay], [[1], 0]);
});

test('who leaves early leaves nothing under way, and the items end', async () => {
  let underWay = 0;
  let ended = false;
  const items = async function* (): AsyncGenerator<number> {
    try {
      for (let item = 0; ; item++) yield await Promise.resolve(item);
    } finally {
      ended = true;
    }
  };
  const work = async (item: number): Promise<number> => {
    underWay += 1;
    await sleep(2);
    underWay -= 1;
    return item;
  };
  for await (const result of inOrder(items(), 4, work)) if (result === 3) break;
  assert.deepEqual([underWay, ended], [0, true]);
});
