/** An image that several threads write to meanwhile comes to be of other kinds, and shows what a model holds. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../../src/errors.js';
import type { AmendOptions, CreateOptions } from '../../../src/image/api/options.js';
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
  { clusterSize: 4096, refcountBits: 1, lazyRefcounts: true },
  { clusterSize: 4096, compressionType: 'zstd' },
];

const changes: readonly AmendOptions[] = [
  ...[1, 2, 4, 8, 16, 16, 32, 64].map((refcountBits) => ({ refcountBits })),
  ...(['0.10', '0.10', '1.1'] as const).map((compat) => ({ compat })),
  { compat: '0.10', refcountBits: 16, size: 5 * mebi },
  { compat: '1.1', lazyRefcounts: true, refcountBits: 64 },
  { lazyRefcounts: true },
  { lazyRefcounts: false },
  { size: 6 * mebi },
  { size: 4 * mebi },
];

const step = fc.record({
  kind: fc.constantFrom('write', 'compress', 'zero', 'snapshot', 'amend', 'amend', 'amend'),
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.integer({ min: 1, max: 300_000 }),
  change: fc.constantFrom(...changes),
});

test('a model of a disk whose image is amended', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  let amended = 0;
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
        const model = Buffer.alloc(2 * mebi);
        const taken: Buffer[] = [];
        let isOver = false;
        const noise = async (number: number): Promise<void> => {
          const random = new Random(number);
          const queue = await (number % 2 === 0 ? attached : image).openQueue();
          while (!isOver) {
            const at = 2 * mebi + random.below(2 * mebi - 70_000);
            const length = 1 + random.below(70_000);
            if (random.below(3) === 0) await queue.writeZeroes(at, length, { unmap: true });
            else await queue.write(new Uint8Array(length).fill(number), at);
            if (random.below(8) === 0) await queue.flush();
          }
        };
        const writers = [1, 2, 3].map(noise);
        let value = 0;
        for (const [index, { kind, at, length, change }] of steps.entries()) {
          const offset = Math.floor(at * (2 * mebi - length));
          // Either of them knows what the other has changed.
          const one = index % 2 === 0 ? image : attached;
          value = (value % 250) + 4;
          if (kind === 'write') {
            await one.write(Buffer.alloc(length, value), offset);
            model.fill(value, offset, offset + length);
          } else if (kind === 'compress') {
            const cluster = image.clusterSize!;
            const start = Math.floor(offset / cluster) * cluster;
            await one.writeCompressed(Buffer.alloc(cluster, value), start);
            model.fill(value, start, start + cluster);
          } else if (kind === 'zero') {
            await one.writeZeroes(offset, length, { unmap: value % 2 === 0 });
            model.fill(0, offset, offset + length);
          } else if (kind === 'snapshot') {
            // Where counts are too narrow for it there is none.
            const isTaken = await one.snapshots.create(`at ${index}`).then(
              () => true,
              (error: unknown) => refusedOnly(error),
            );
            if (isTaken) taken.push(Buffer.from(model));
          } else {
            const isDone = await one.amend(change).then(
              () => true,
              (error: unknown) => refusedOnly(error),
            );
            if (isDone) amended++;
          }
          const found = Buffer.alloc(2 * mebi);
          await (index % 3 === 0 ? image : attached).read(found, 0);
          assert.ok(found.equals(model), `${index} ${kind} ${JSON.stringify(change)}`);
          assert.equal(image.size, attached.size);
        }
        isOver = true;
        await Promise.all(writers);
        await attached.close();
        await image.close();
        await runOk('qemu-img', ['check', '-q', file]);
        for (const [index, content] of taken.entries()) {
          const then = await openImage(file, {
            snapshot: { id: String(index + 1) },
            readOnly: true,
          });
          const found = Buffer.alloc(2 * mebi);
          await then.read(found, 0);
          await then.close();
          assert.ok(found.equals(content), `snapshot ${index + 1}`);
        }
      },
    ),
    { seed, numRuns: runs, endOnFailure: true },
  );
  t.diagnostic(`${amended} changes were made`);
  assert.ok(amended > 0);
});

/** Passes what is refused; anything else is a failure. */
function refusedOnly(error: unknown): false {
  if (error instanceof CowherdError && error.code === 'ERR_COWHERD_UNSUPPORTED') return false;
  throw error;
}
