/** The filters `rate` and `throttle`: how long things take. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FilterChoice } from '../../../src/image/api/options.js';
import { withFilters } from '../../../src/storage/filters/registry.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';

/** Milliseconds that requests take, all begun at once. */
async function timed(
  choice: FilterChoice,
  requests: (file: StorageFile) => readonly Promise<unknown>[],
): Promise<number> {
  const inner = new MemoryFile();
  await inner.truncate(1 << 20);
  const file = await withFilters(inner, [choice], openStorageFile);
  const begunMs = performance.now();
  await Promise.all(requests(file));
  const took = performance.now() - begunMs;
  await file.close();
  return took;
}

const reads = (file: StorageFile): Promise<void>[] =>
  Array.from({ length: 10 }, (_, index) => file.read(new Uint8Array(10_000), index * 10_000));
const writes = (file: StorageFile): Promise<void>[] =>
  Array.from({ length: 10 }, (_, index) => file.write(new Uint8Array(10_000), index * 10_000));
const both = (file: StorageFile): Promise<void>[] => [...reads(file), ...writes(file)];

/** 200 000 bytes, or 20 operations, of which ten are writes. */
const limited: readonly (readonly [FilterChoice, number])[] = [
  [{ name: 'rate', bytesPerSecond: 500_000, burst: 10_000 }, 380],
  [{ name: 'rate', bytesPerSecond: 500_000, burst: 150_000 }, 100],
  [{ name: 'throttle', bpsTotal: 20_000, bpsTotalMax: 500_000 }, 0],
  [{ name: 'throttle', bpsRead: 200_000 }, 350],
  [{ name: 'throttle', bpsWrite: 20_000, bpsWriteMax: 250_000 }, 0],
  [{ name: 'throttle', iopsTotal: 50 }, 280],
  [{ name: 'throttle', iopsRead: 50, iopsWrite: 25 }, 260],
];

for (const [choice, leastMs] of limited) {
  test(`${JSON.stringify(choice)} takes ${leastMs} ms`, async () => {
    const took = await timed(choice, both);
    assert.ok(took >= leastMs * 0.9, `${took} ms`);
    assert.ok(took < leastMs + 1500, `${took} ms`);
  });
}

test('rate lets no single request through that is more than its burst', async () => {
  const whole = (file: StorageFile): Promise<void>[] => [file.read(new Uint8Array(100_000), 0)];
  const took = await timed({ name: 'rate', bytesPerSecond: 500_000, burst: 50_000 }, whole);
  assert.ok(took >= 95 && took < 1500, `${took} ms`);
});

test('a limit of one direction leaves the other alone', async () => {
  assert.ok((await timed({ name: 'throttle', bpsWrite: 1000 }, reads)) < 1500);
  assert.ok((await timed({ name: 'throttle', iopsRead: 1 }, writes)) < 1500);
});

test('queues share one budget, and closing waits for what is held back', async () => {
  const file = await withFilters(
    new MemoryFile(),
    [{ name: 'rate', bytesPerSecond: 100_000, burst: 1 }],
    openStorageFile,
  );
  const queue = file.openQueue();
  const begunMs = performance.now();
  let written = 0;
  for (const each of [file, queue, file, queue]) {
    void each.write(new Uint8Array(10_000), 0).then(() => (written += 1));
  }
  await queue.close();
  await file.close();
  assert.equal(written, 4);
  assert.ok(performance.now() - begunMs >= 270);
});
