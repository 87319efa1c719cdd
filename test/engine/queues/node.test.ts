/** Nodes: size, gate and poison of an open image, whichever format it has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Entrance, Node } from '../../../src/engine/queues/node.js';
import {
  ControlWord,
  GateState,
  allocateControlBlock,
} from '../../../src/engine/words/control-block.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

const permissions = { write: true, repair: false };

function twoViews(): { block: Int32Array; one: Node; other: Node } {
  const block = allocateControlBlock();
  const one = new Node(block, 'disk.img', permissions);
  const other = new Node(block, 'disk.img', permissions);
  return { block, one, other };
}

test('every view of a node sees its size, up to the largest', (t) => {
  t.diagnostic(`seed ${seed}`);
  fc.assert(
    fc.property(fc.array(fc.maxSafeNat(), { minLength: 1, maxLength: 5 }), (sizes) => {
      const { one, other } = twoViews();
      for (const [nth, size] of sizes.entries()) {
        (nth % 2 === 0 ? one : other).resize(size);
        assert.equal(one.size, size);
        assert.equal(other.size, size);
      }
    }),
    { seed },
  );
});

test('a section runs once the requests of all queues have ended, and holds up further ones', async () => {
  const { one, other } = twoViews();
  const queue = new Entrance(other);
  const order: string[] = [];
  let end = (): void => undefined;
  const request = queue.run(async () => {
    await new Promise<void>((resolve) => {
      end = resolve;
    });
    order.push('request');
  });
  const section = one.runAlone(async () => {
    await Promise.resolve();
    order.push('section');
  });
  const next = queue.run(() => Promise.resolve(order.push('next')));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(order, []);
  end();
  await Promise.all([request, section, next]);
  assert.deepEqual(order, ['request', 'section', 'next']);
  await queue.close();
});

test('a poisoned node refuses requests and sections', async () => {
  const { block, one } = twoViews();
  const queue = new Entrance(one);
  Atomics.store(block, ControlWord.gate, GateState.poisoned);
  const refused = { code: 'ERR_COWHERD_POISONED', filename: 'disk.img' };
  await assert.rejects(
    queue.run(() => Promise.resolve()),
    refused,
  );
  await assert.rejects(
    one.runAlone(() => Promise.resolve()),
    refused,
  );
  await queue.close();
});

test('a queue that has left gives its place to another', async () => {
  const { one } = twoViews();
  for (let round = 0; round < 1000; round++) await new Entrance(one).close();
  const queues = Array.from({ length: 256 }, () => new Entrance(one));
  assert.throws(() => new Entrance(one), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
  await Promise.all(queues.map((queue) => queue.close()));
});
