/** The slice cache: shared loads, eviction that spares the dirty and the pinned, failed loads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SliceCache, allocateSliceCache } from '../../../src/engine/cache/slice-cache.js';

const sliceSize = 512;

function oneSet(): SliceCache {
  return new SliceCache(allocateSliceCache(8 * sliceSize, sliceSize), (key) => key * sliceSize);
}

const fillWith =
  (value: number) =>
  (bytes: Uint8Array): Promise<void> => {
    bytes.fill(value);
    return Promise.resolve();
  };

test('concurrent calls for one key share one load', async () => {
  const cache = oneSet();
  let loads = 0;
  const load = async (bytes: Uint8Array): Promise<void> => {
    loads++;
    await new Promise((resolve) => setImmediate(resolve));
    bytes.fill(7);
  };
  const slots = await Promise.all([cache.acquire(3, load), cache.acquire(3, load)]);
  assert.equal(loads, 1);
  assert.equal(slots[0], slots[1]);
  assert.equal(cache.find(3), slots[0]);
  assert.ok(cache.sliceBytes(slots[0]).every((byte) => byte === 7));
});

test('a failed load leaves nothing behind, and the next call loads again', async () => {
  const cache = oneSet();
  await assert.rejects(
    cache.acquire(1, () => Promise.reject(new Error('no'))),
    /no/,
  );
  assert.equal(cache.find(1), -1);
  const slot = await cache.acquire(1, fillWith(1));
  assert.equal(cache.sliceBytes(slot)[0], 1);
});

test('eviction takes clean slices, writes back when only dirty ones are left', async () => {
  const cache = oneSet();
  let written = 0;
  cache.writeBack = () => {
    for (const copy of cache.copyDirty()) {
      written++;
      cache.markClean(copy);
    }
    return Promise.resolve();
  };
  for (let key = 0; key < 8; key++) {
    const slot = await cache.acquire(key, fillWith(key));
    cache.lockExclusive(slot);
    cache.markDirty(slot);
    cache.unlockExclusive(slot);
    cache.unpin(slot);
  }
  assert.equal(written, 0);
  cache.unpin(await cache.acquire(8, fillWith(8)));
  assert.equal(written, 8);
  assert.notEqual(cache.find(8), -1);
  assert.equal(cache.copyDirty().length, 0);
});

test('a set full of pinned slices waits for one to be let go', async () => {
  const cache = oneSet();
  const slots: number[] = [];
  for (let key = 0; key < 8; key++) slots.push(await cache.acquire(key, fillWith(key)));
  let arrived = false;
  const late = cache.acquire(9, fillWith(9)).then((slot) => {
    arrived = true;
    return slot;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(arrived, false);
  cache.unpin(slots[4]);
  assert.equal(await late, slots[4]);
  assert.equal(cache.find(4), -1);
});

test('a slice changed while its copy was on the way stays dirty', async () => {
  const cache = oneSet();
  const slot = await cache.acquire(0, fillWith(0));
  const change = (): void => {
    cache.lockExclusive(slot);
    cache.markDirty(slot);
    cache.unlockExclusive(slot);
  };
  change();
  const [copy] = cache.copyDirty();
  change();
  cache.markClean(copy);
  assert.equal(cache.copyDirty().length, 1);
});

test('nothing is evicted from a set that has an empty slot', async () => {
  const slots = 64;
  const cache = new SliceCache(allocateSliceCache(slots * 512, 512), () => 0);
  assert.equal(cache.slots, slots);
  let loads = 0;
  const load = (): Promise<void> => {
    loads++;
    return Promise.resolve();
  };
  for (let round = 0; round < 2; round++) {
    for (let key = 0; key < slots; key++) cache.unpin(await cache.acquire(key, load));
  }
  assert.equal(loads, slots);
});
