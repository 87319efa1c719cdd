/** Disks that grow and shrink while they are written to, also through another thread's view, hold what a model holds. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CreateOptions } from '../../../src/image/api/options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);
const mebi = 1 << 20;

type Step =
  | { readonly kind: 'resize'; readonly sectors: number }
  | { readonly kind: 'write' | 'zero' | 'discard'; readonly at: number; readonly length: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('resize' as const), sectors: fc.nat(20_000) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'write' as const,
        'write' as const,
        'zero' as const,
        'discard' as const,
      ),
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      length: fc.integer({ min: 1, max: 300_000 }),
    }),
  },
);
const layouts: readonly CreateOptions[] = [
  {},
  { clusterSize: 512 },
  { clusterSize: 4096, compat: '0.10' },
  { clusterSize: 16_384, extendedL2: true },
  { clusterSize: 4096, refcountBits: 1, lazyRefcounts: true },
];

test('what a disk had beyond its end does not show when it grows within a cluster', async (t) => {
  for (const layout of layouts) {
    const file = path.join(await temporaryFolder(t), 'disk');
    await createImage(file, { format: 'qcow2', size: mebi, ...layout });
    await using image = await openImage(file);
    await image.write(Buffer.alloc(mebi, 1), 0);
    for (const size of [mebi - 512, mebi - 3 * 512, mebi - 512]) {
      await image.resize(size, { shrink: true });
    }
    const end = Buffer.alloc(3 * 512);
    await image.read(end, mebi - 4 * 512);
    assert.deepEqual(
      [end.subarray(0, 512), end.subarray(512)].map((each) => [...new Set(each)]),
      [[1], [0]],
    );
  }
});

test('a model of a disk', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...layouts),
      fc.boolean(),
      fc.array(step, { minLength: 3, maxLength: 25 }),
      async (layout, isAttached, steps) => {
        const folder = await temporaryFolder(t);
        const file = path.join(folder, 'disk');
        await createImage(file, { format: 'qcow2', size: 2 * mebi, ...layout });
        let model = Buffer.alloc(2 * mebi);
        /** What was discarded may be as it was. */
        let known = Buffer.alloc(2 * mebi, 1);
        const image = await openImage(file);
        const target = isAttached ? await attachImage(image.handle()) : await image.openQueue();
        let value = 0;
        for (const each of steps) {
          if (each.kind === 'resize') {
            const size = each.sectors * 512;
            await image.resize(size, { shrink: true });
            assert.equal(image.size, size);
            const [grown, sure] = [Buffer.alloc(size), Buffer.alloc(size, 1)];
            model.copy(grown);
            known.copy(sure);
            [model, known] = [grown, sure];
            continue;
          }
          const at = Math.floor(each.at * model.length);
          const length = Math.min(each.length, model.length - at);
          if (length === 0) continue;
          value = (value % 250) + 1;
          if (each.kind === 'write') {
            await target.write(Buffer.alloc(length, value), at);
            model.fill(value, at, at + length);
            known.fill(1, at, at + length);
          } else if (each.kind === 'zero') {
            await target.writeZeroes(at, length, { unmap: value % 2 === 0 });
            model.fill(0, at, at + length);
            known.fill(1, at, at + length);
          } else {
            await target.discard(at, length);
            known.fill(0, at, at + length);
          }
        }
        const found = Buffer.alloc(model.length);
        if (found.length > 0) await target.read(found, 0);
        const differs = found.findIndex((byte, at) => known[at] === 1 && byte !== model[at]);
        assert.equal(differs, -1, `byte ${differs}`);
        await target.close();
        await image.close();
        await runOk('qemu-img', ['check', '-q', file]);
        const again = await openImage(file, { readOnly: true });
        assert.equal(again.size, model.length);
        const stored = Buffer.alloc(model.length);
        if (stored.length > 0) await again.read(stored, 0);
        await again.close();
        assert.ok(stored.equals(found), 'it reads the same once more');
      },
    ),
    { seed, numRuns: runs },
  );
});
