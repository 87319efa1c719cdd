/** What has been settled is found by whoever opens the file next, though nobody has flushed it. */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const size = 1 << 20;

const change = fc.record({
  kind: fc.constantFrom('write', 'zero', 'discard', 'compress'),
  block: fc.nat(size / 4096 - 1),
  fill: fc.integer({ min: 1, max: 255 }),
});

for (const format of ['qcow2', 'raw', 'vmdk'] as const) {
  test(`what is settled outlasts the process: ${format}`, async (t) => {
    t.diagnostic(`seed ${seed}`);
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk');
    const copy = path.join(folder, 'copy');
    await createImage(file, { format, size, ...(format === 'qcow2' && { clusterSize: 4096 }) });
    await using image = await openImage(file, { format });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
        for (const { kind, block, fill } of changes) {
          const data = new Uint8Array(4096).fill(fill);
          const isStored = kind === 'discard' || kind === 'zero';
          if (isStored) await image.writeZeroes(block * 4096, 4096, { unmap: kind === 'discard' });
          else if (kind === 'compress' && format === 'qcow2') {
            await image.discard(block * 4096, 4096);
            await image.writeCompressed(data, block * 4096).catch(() => undefined);
          } else await image.write(data, block * 4096);
        }
        await image.settle();
        await copyFile(file, copy);
        const [expected, found] = [Buffer.alloc(size), Buffer.alloc(size)];
        await image.read(expected, 0);
        await using other = await openImage(copy, { format, readOnly: true });
        await other.read(found, 0);
        assert.ok(found.equals(expected));
      }),
      { seed, numRuns: 40 },
    );
  });
}

test('where only data are overwritten nothing has to be settled', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size });
  await using image = await openImage(file);
  const rounds = (): number => image.stats().total.flushRounds.led;
  await image.write(new Uint8Array(4096).fill(1), 0);
  await image.settle();
  const before = rounds();
  await image.write(new Uint8Array(4096).fill(2), 512);
  await image.settle();
  assert.equal(rounds(), before);
  await image.write(new Uint8Array(4096).fill(2), 1 << 19);
  await Promise.all([image.settle(), image.settle()]);
  assert.ok(rounds() > before);
});
