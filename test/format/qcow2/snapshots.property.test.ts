/** Snapshots of a disk that other queues write to, through another thread's view too, hold what a model holds. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../../src/errors.js';
import type { CreateOptions } from '../../../src/image/api/options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { Random } from '../../stress/random.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 20);
const mebi = 1 << 20;

const layouts: readonly CreateOptions[] = [
  {},
  { clusterSize: 512 },
  { clusterSize: 4096, compat: '0.10' },
  { clusterSize: 16_384, extendedL2: true },
  { clusterSize: 4096, refcountBits: 4, lazyRefcounts: true },
];

const step = fc.record({
  kind: fc.constantFrom(
    ...['write', 'write', 'compress', 'zero', 'create', 'create', 'apply', 'delete', 'resize'],
  ),
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.integer({ min: 1, max: 300_000 }),
});

test('a model of a disk and its snapshots', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  let applied = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...layouts),
      fc.constantFrom('none', 'cached', 'all' as const),
      fc.array(step, { minLength: 4, maxLength: 20 }),
      async (layout, overlapCheck, steps) => {
        const file = path.join(await temporaryFolder(t), 'disk');
        await createImage(file, { format: 'qcow2', size: 4 * mebi, ...layout });
        const image = await openImage(file, { overlapCheck: overlapCheck as 'none' });
        const attached = await attachImage(image.handle());
        let model = Buffer.alloc(2 * mebi);
        const taken = new Map<string, { readonly content: Buffer; readonly size: number }>();
        let isOver = false;
        const noise = async (number: number): Promise<void> => {
          const random = new Random(number);
          const queue = await (number % 2 === 0 ? attached : image).openQueue();
          while (!isOver) {
            const at = 2 * mebi + random.below(2 * mebi - 70_000);
            await queue.write(new Uint8Array(1 + random.below(70_000)).fill(number), at);
            if (random.below(8) === 0) await queue.flush();
          }
        };
        const writers = [1, 2, 3].map(noise);
        let value = 0;
        for (const { kind, at, length } of steps) {
          const offset = Math.floor(at * (2 * mebi - length));
          const names = [...taken.keys()];
          const name = names.at(Math.floor(at * names.length * 0.999)) ?? '';
          if (kind === 'write') {
            value = (value % 250) + 4;
            await image.write(Buffer.alloc(length, value), offset);
            model.fill(value, offset, offset + length);
          } else if (kind === 'compress') {
            value = (value % 250) + 4;
            const cluster = image.clusterSize!;
            const start = Math.floor(offset / cluster) * cluster;
            await image.writeCompressed(Buffer.alloc(cluster, value), start);
            model.fill(value, start, start + cluster);
          } else if (kind === 'zero') {
            await image.writeZeroes(offset, length, { unmap: value % 2 === 0 });
            model.fill(0, offset, offset + length);
          } else if (kind === 'resize') {
            if (layout.compat === '0.10') continue;
            await image.resize(4 * mebi + Math.floor(at * 4000) * 512, { shrink: true });
          } else if (kind === 'create') {
            const { id } = await image.snapshots.create(`after ${taken.size}`);
            taken.set(id, { content: Buffer.from(model), size: image.size });
          } else if (names.length === 0) {
            await assert.rejects(image.snapshots.delete('1'), CowherdError);
          } else if (kind === 'apply') {
            applied++;
            await image.snapshots.apply({ id: name });
            model = Buffer.from(taken.get(name)!.content);
            assert.equal(image.size, taken.get(name)!.size);
            assert.equal(attached.size, image.size);
          } else {
            await image.snapshots.delete(name);
            taken.delete(name);
          }
          const found = Buffer.alloc(2 * mebi);
          await attached.read(found, 0);
          assert.ok(found.equals(model), kind);
        }
        isOver = true;
        await Promise.all(writers);
        assert.deepEqual(
          (await image.snapshots.list()).map(({ id }) => id),
          [...taken.keys()],
        );
        await attached.close();
        await image.close();
        await runOk('qemu-img', ['check', '-q', file]);
        for (const [id, { content, size }] of taken) {
          const then = await openImage(file, { snapshot: { id }, readOnly: true });
          const found = Buffer.alloc(2 * mebi);
          await then.read(found, 0);
          await then.close();
          assert.ok(found.equals(content), `snapshot ${id}, of ${size} bytes`);
        }
      },
    ),
    { seed, numRuns: runs, endOnFailure: true },
  );
  t.diagnostic(`${applied} times back`);
});
