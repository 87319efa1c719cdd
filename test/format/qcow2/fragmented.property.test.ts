/**
 * Requests of every kind at once in an image whose free clusters lie apart, one by one: compressed
 * and plain writes, new L2 tables, clusters that a snapshot holds, and clusters given back. Whatever
 * the requests do not touch must stay, and the real tool must find nothing wrong.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Image, RequestTarget } from '../../../src/image/api/image.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { fragmentedSpace, mixedWeights } from '../../support/fragmented-space.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 15);

type Kind = 'table' | keyof typeof mixedWeights;

const kind: fc.Arbitrary<Kind> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Kind>('table') },
  ...Object.entries(mixedWeights).map(([name, weight]) => ({
    weight,
    arbitrary: fc.constant(name as Kind),
  })),
);

const scenario = fc.record({
  clusterSize: fc.constantFrom(512, 4096, 65536),
  snapshot: fc.boolean(),
  lazyRefcounts: fc.boolean(),
  queues: fc.integer({ min: 1, max: 3 }),
  /** One cluster in so many is free. */
  apart: fc.integer({ min: 2, max: 5 }),
  cache: fc.constantFrom('writeback' as const, 'none' as const),
  batches: fc.array(fc.array(kind, { minLength: 1, maxLength: 12 }), {
    minLength: 1,
    maxLength: 8,
  }),
});

/** Guest clusters that are written at first. */
const filled = 192;
const tables = 12;

test('requests in free space of single clusters change nothing else', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const folder = await temporaryFolder(t);
  let count = 0;
  await fc.assert(
    fc.asyncProperty(scenario, async (drawn) => {
      const file = path.join(folder, `${count++}.qcow2`);
      const { clusterSize, lazyRefcounts } = drawn;
      const space = fragmentedSpace({ clusterSize, filled, apart: drawn.apart, tables });
      await createImage(file, {
        format: 'qcow2',
        size: space.clusters * clusterSize,
        clusterSize,
        lazyRefcounts,
      });
      const content = new Map<number, number>();
      let stamp = 0;
      const filledBuffer = (): { buffer: Uint8Array; value: number } => {
        const value = (stamp = (stamp % 250) + 1);
        return { buffer: new Uint8Array(clusterSize).fill(value), value };
      };
      let image = await openImage(file);
      const fill = async (clusters: readonly number[]): Promise<void> => {
        for (const cluster of clusters) {
          const { buffer, value } = filledBuffer();
          await image.write(buffer, cluster * clusterSize);
          content.set(cluster, value);
        }
      };
      await fill(space.held);
      await image.close();
      if (drawn.snapshot) await runOk('qemu-img', ['snapshot', '-c', 'one', file]);
      image = await openImage(file);
      await fill(space.written);
      for (const cluster of space.given) {
        await image.discard(cluster * clusterSize, clusterSize);
        content.set(cluster, 0);
      }
      await image.close();

      image = await openImage(file, { cache: drawn.cache });
      const targets: RequestTarget[] = [image];
      while (targets.length < drawn.queues) targets.push(await image.openQueue());
      const free = [...space.given];
      let table = 0;
      for (const batch of drawn.batches) {
        // Of requests that overlap in time and place either order would be right.
        const touched = new Set<number>();
        await Promise.all(
          batch.map(async (kind, index) => {
            const target = targets[index % targets.length];
            if (kind === 'flush') return target.flush();
            const inUse = filled - 1 - ((index * 7 + table) % (filled / 2));
            if (kind === 'read') {
              if (touched.has(inUse)) return undefined;
              const expected = new Map([[inUse, content.get(inUse)!]]);
              touched.add(inUse);
              return expectContent(image, expected, clusterSize);
            }
            if (kind === 'discard' || kind === 'zero') {
              if (touched.has(inUse) || content.get(inUse) === 0) return undefined;
              touched.add(inUse);
              content.set(inUse, 0);
              const offset = inUse * clusterSize;
              if (kind === 'discard') return target.discard(offset, clusterSize);
              return target.writeZeroes(offset, clusterSize);
            }
            const { buffer, value } = filledBuffer();
            const within = kind === 'table' ? 1 + index : 100 + index;
            const unmapped = space.unmapped[++table % tables] + (within % (clusterSize / 8));
            const cluster = kind === 'table' ? unmapped : (free.pop() ?? unmapped);
            if (touched.has(cluster)) return undefined;
            content.set(cluster, value);
            touched.add(cluster);
            const offset = cluster * clusterSize;
            if (kind === 'compress') return target.writeCompressed(buffer, offset);
            return target.write(buffer, offset);
          }),
        );
      }
      await expectContent(image, content, clusterSize);
      await image.close();
      const check = await run('qemu-img', ['check', file]);
      assert.equal(check.code, 0, `${check.stdout}${check.stderr}`);
      image = await openImage(file, { readOnly: true });
      await expectContent(image, content, clusterSize);
      await image.close();
    }),
    { seed, numRuns: runs, endOnFailure: true },
  );
});

async function expectContent(
  image: Image,
  content: ReadonlyMap<number, number>,
  clusterSize: number,
): Promise<void> {
  const buffer = new Uint8Array(clusterSize);
  for (const [cluster, value] of content) {
    await image.read(buffer, cluster * clusterSize);
    const wrong = buffer.find((byte) => byte !== value);
    assert.equal(wrong, undefined, `cluster ${cluster} should hold ${value}`);
  }
}
