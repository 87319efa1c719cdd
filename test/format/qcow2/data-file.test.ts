/** External data files: what is given up goes back to the host, and a raw one shows what the guest sees. */
import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 15);
const mib = 1024 * 1024;

for (const how of ['discard', 'writeZeroes'] as const) {
  test(`a data file gets smaller by what is given up: ${how}`, async (t) => {
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'image.qcow2');
    await createImage(file, {
      format: 'qcow2',
      size: 16 * mib,
      dataFile: path.join(folder, 'image.data'),
    });
    const image = await openImage(file);
    for (let at = 0; at < 16; at++) await image.write(new Uint8Array(mib).fill(1), at * mib);
    await image.flush();
    const before = (await stat(path.join(folder, 'image.data'))).blocks;
    if (how === 'discard') await image.discard(0, 12 * mib);
    else await image.writeZeroes(0, 12 * mib, { unmap: true });
    await image.write(new Uint8Array(512).fill(9), 70_000);
    await image.flush();
    const after = (await stat(path.join(folder, 'image.data'))).blocks;
    assert.ok(after < before / 2, `${after} of ${before} blocks are left`);
    const found = new Uint8Array(mib);
    await image.read(found, 0);
    const expected = new Uint8Array(mib).fill(9, 70_000, 70_512);
    assert.ok(Buffer.compare(found, expected) === 0);
    await image.close();
    if (!needsTool(t, 'qemu-img')) return;
    assert.equal((await run('qemu-img', ['check', file])).code, 0);
  });
}

const change = fc.record({
  kind: fc.constantFrom('write', 'write', 'discard', 'zero', 'unmap'),
  at: fc.nat(40),
  count: fc.integer({ min: 1, max: 12 }),
  fill: fc.integer({ min: 1, max: 255 }),
});

for (const dataFileRaw of [true, false]) {
  test(`changes that overlap in time leave one view, raw ${String(dataFileRaw)}`, async (t) => {
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    const folder = await temporaryFolder(t);
    let count = 0;
    const unit = 2048;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(change, { minLength: 2, maxLength: 12 }), { minLength: 1, maxLength: 6 }),
        fc.constantFrom('writeback' as const, 'none' as const),
        async (batches, cache) => {
          const name = `${count++}`;
          const file = path.join(folder, `${name}.qcow2`);
          await createImage(file, {
            format: 'qcow2',
            size: 64 * 4096,
            clusterSize: 4096,
            dataFile: path.join(folder, `${name}.data`),
            dataFileRaw,
          });
          const image = await openImage(file, { cache });
          const targets = [image, await image.openQueue()];
          for (const batch of batches) {
            await Promise.all(
              batch.map(({ kind, at, count: units, fill }, index) => {
                const target = targets[index % 2];
                const [offset, length] = [at * unit, units * unit];
                if (kind === 'write')
                  return target.write(new Uint8Array(length).fill(fill), offset);
                if (kind === 'discard') return target.discard(offset, length);
                return target.writeZeroes(offset, length, { unmap: kind === 'unmap' });
              }),
            );
          }
          await image.flush();
          const seen = new Uint8Array(image.size);
          await image.read(seen, 0);
          await image.close();
          const again = await openImage(file, { readOnly: true });
          const kept = new Uint8Array(again.size);
          await again.read(kept, 0);
          await again.close();
          assert.ok(Buffer.compare(seen, kept) === 0, 'what was flushed is not what is there');
          if (!dataFileRaw) return;
          const raw = await readFile(path.join(folder, `${name}.data`));
          assert.ok(Buffer.compare(seen, raw) === 0, 'the raw file shows something else');
        },
      ),
      { seed, numRuns: runs, endOnFailure: true },
    );
    if (!needsTool(t, 'qemu-img')) return;
    for (let index = 0; index < count; index++) {
      const file = path.join(folder, `${index}.qcow2`);
      assert.equal((await run('qemu-img', ['check', file])).code, 0);
    }
  });
}
