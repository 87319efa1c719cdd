/** What memory files add: content that outlives them, and completions in any order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';

test('nothing happens before its time, and the order is the scheduler’s', async () => {
  const scheduled: (() => void)[] = [];
  const file = new MemoryFile('disk', { schedule: (work) => scheduled.push(work) });
  const first = file.write(new Uint8Array([1]), 0);
  const second = file.write(new Uint8Array([2]), 0);
  assert.equal(file.content.size, 0);
  for (const work of scheduled.splice(0).reverse()) work();
  await Promise.all([first, second]);
  const byte = new Uint8Array(1);
  file.content.read(byte, 0);
  assert.equal(byte[0], 1, 'the first write came last');
});

test('content can be cloned, and opened again', async () => {
  const content = new MemoryContent();
  const file = new MemoryFile('disk', { content });
  await file.write(new Uint8Array([1, 2, 3]), 1_000_000);
  const copy = content.clone();
  await file.write(new Uint8Array([9]), 1_000_000);
  await file.close();
  const again = new MemoryFile('disk', { content: copy, readOnly: true });
  const bytes = new Uint8Array(3);
  await again.read(bytes, 1_000_000);
  assert.deepEqual([...bytes], [1, 2, 3]);
  assert.equal(copy.allocatedSize, 65_536);
});
