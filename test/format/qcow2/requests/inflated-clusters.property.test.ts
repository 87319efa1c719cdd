/** Parts of inflated clusters, read side by side, forgotten meanwhile and failing now and then. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { asHostOffset } from '../../../../src/format/qcow2/layout/geometry.js';
import { InflatedClusters } from '../../../../src/format/qcow2/requests/inflated-clusters.js';

const clusterSize = 2 * 1024 * 1024;
/** With clusters of this size two are remembered. */
const most = 2;

interface Read {
  readonly hostOffset: number;
  readonly within: number;
  readonly length: number;
  /** Turns of the event loop before it begins. */
  readonly after: number;
  readonly forgets: boolean;
}

const reads = fc.array(
  fc.record<Read>({
    hostOffset: fc.integer({ min: 1, max: 6 }),
    within: fc.nat(clusterSize - 16),
    length: fc.integer({ min: 1, max: 16 }),
    after: fc.nat(6),
    forgets: fc.boolean(),
  }),
  { maxLength: 40 },
);

test('every read gets its bytes or its failure, and memory is bounded', async () => {
  await fc.assert(
    fc.asyncProperty(reads, fc.array(fc.boolean(), { minLength: 1 }), async (list, failures) => {
      const memories = new Set<Uint8Array>();
      let inflations = 0;
      let underWay = 0;
      const clusters = new InflatedClusters(clusterSize, async (hostOffset, size, into) => {
        memories.add(into);
        underWay += 1;
        assert.ok(underWay <= most);
        assert.equal(size, 100 + hostOffset);
        const fails = failures[inflations++ % failures.length];
        into.fill(0);
        await setImmediate();
        underWay -= 1;
        if (fails) throw new Error('damaged');
        into.fill(hostOffset);
      });
      await Promise.all(
        list.map(async ({ hostOffset, within, length, after, forgets }) => {
          for (let turn = 0; turn < after; turn += 1) await setImmediate();
          if (forgets) clusters.clear();
          const target = new Uint8Array(length);
          const error: unknown = await clusters
            .read(asHostOffset(hostOffset), 100 + hostOffset, within, target)
            .catch((reason: unknown) => reason);
          if (error === undefined) assert.ok(target.every((byte) => byte === hostOffset));
          else assert.equal((error as Error).message, 'damaged');
        }),
      );
      assert.ok(memories.size <= most, `${memories.size} clusters were held`);
    }),
    { numRuns: 100 },
  );
});

test('what is read at the same time or soon after is inflated once', async () => {
  let inflations = 0;
  const clusters = new InflatedClusters(clusterSize, async (hostOffset, _size, into) => {
    inflations += 1;
    await setImmediate();
    into.fill(hostOffset);
  });
  const target = new Uint8Array(4);
  const place = asHostOffset(7);
  await Promise.all([
    clusters.read(place, 1, 0, target),
    clusters.read(place, 1, 9, new Uint8Array(4)),
  ]);
  await clusters.read(place, 1, 100, target);
  assert.equal(inflations, 1);
  assert.deepEqual([...target], [7, 7, 7, 7]);
  clusters.clear();
  await clusters.read(place, 1, 100, target);
  assert.equal(inflations, 2);
});
