/**
 * Filling an image from another file: what is copied is there, what cannot be is left as it was, data lie
 * in the order of the copies without a gap, and the real tool finds nothing wrong.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createImage } from '../../../../src/image/graph/create.js';
import {
  type DataSegment,
  ImageFiller,
  plainBytes,
} from '../../../../src/image/graph/data-copy.js';
import { openImage } from '../../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);

const block = 4096;

const scenario = fc.record({
  clusterSize: fc.constantFrom(4096, 16_384, 65_536),
  /** Blocks of the source; some are zeroes. */
  blocks: fc.array(fc.boolean(), { minLength: 1, maxLength: 300 }),
  /** Bytes that the disk ends before its last block. */
  missing: fc.constantFrom(0, 512, 3584),
  /** Clusters that hold something before, by parts of the disk. */
  taken: fc.array(fc.nat(99), { maxLength: 3 }),
  /** Clusters that a copy covers, in turn. */
  lengths: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
  atOnce: fc.integer({ min: 1, max: 4 }),
});

/** Data of which every block differs. */
function contentOf(blocks: readonly boolean[], size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const [index, isData] of blocks.entries()) {
    if (isData) bytes.fill(1 + (index % 250), index * block, (index + 1) * block);
  }
  return bytes;
}

test('what is copied is there, in order, and what is not is left', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const folder = await temporaryFolder(t);
  let count = 0;
  await fc.assert(
    fc.asyncProperty(scenario, async (drawn) => {
      const { clusterSize, blocks, missing, taken, lengths, atOnce } = drawn;
      const size = blocks.length * block - missing;
      const content = contentOf(blocks, size);
      const sourceFile = path.join(folder, `${count}.raw`);
      const targetFile = path.join(folder, `${count++}.qcow2`);
      const handle = await open(sourceFile, 'w');
      await handle.write(content);
      await handle.close();
      await createImage(targetFile, { format: 'qcow2', size, clusterSize });
      const source = await openImage(sourceFile, { format: 'raw', readOnly: true });
      const target = await openImage(targetFile, { inOrder: true });
      const expected = new Uint8Array(size);
      const clusters = Math.ceil(size / clusterSize);
      const occupied = new Set(taken.map((part) => Math.floor((part * clusters) / 100)));
      for (const cluster of occupied) {
        const start = cluster * clusterSize;
        const bytes = new Uint8Array(Math.min(clusterSize, size - start)).fill(255);
        await target.write(bytes, start);
        expected.set(bytes, start);
      }
      const filler = ImageFiller.of(target, { sparseSize: block, offload: false });
      assert.ok(filler !== undefined);
      const extent = { start: 0, length: size, depth: 0, present: true, zero: false, data: true };
      const bytes = plainBytes(source, {
        ...extent,
        compressed: false,
        offset: 0,
        filename: source.filename,
      });
      assert.ok(bytes !== undefined);
      const under = new Set<Promise<unknown>>();
      let cluster = 0;
      for (let index = 0; cluster < clusters; index++) {
        const start = cluster * clusterSize;
        const wanted = lengths[index % lengths.length] * clusterSize;
        const within = filler.mostBytes - (start % filler.mostBytes);
        const length = Math.min(wanted, within, size - start);
        const segments: DataSegment[] = [{ bytes: { ...bytes, offset: start }, length }];
        const copying = filler.copy(segments, start, length).then((parts) => {
          const touched = Array.from(
            { length: Math.ceil(length / clusterSize) },
            (_, one) => start / clusterSize + one,
          );
          const isFree = !touched.some((one) => occupied.has(one));
          assert.equal(parts !== undefined, isFree, 'only what is free is filled');
          if (isFree) expected.set(content.subarray(start, start + length), start);
          under.delete(copying);
        });
        under.add(copying);
        while (under.size >= atOnce) await Promise.race(under);
        cluster += Math.ceil(length / clusterSize);
      }
      await Promise.all(under);
      const shown = new Uint8Array(size);
      await target.read(shown, 0);
      assert.deepEqual(shown, expected);
      await target.close();
      await source.close();
      const check = await run('qemu-img', ['check', targetFile]);
      assert.equal(check.code, 0, `${check.stdout}${check.stderr}`);
      const again = await openImage(targetFile, { readOnly: true });
      await again.read(shown, 0);
      assert.deepEqual(shown, expected);
      // Data that were copied one after the other lie so.
      const places: number[] = [];
      for await (const { data, zero, offset, start } of again.map()) {
        const isCopied = !occupied.has(Math.floor(start / clusterSize));
        if (data && !zero && offset !== undefined && isCopied) places.push(offset);
      }
      assert.deepEqual(
        places,
        [...places].sort((a, b) => a - b),
      );
      await again.close();
    }),
    { seed, numRuns: runs, endOnFailure: true },
  );
});
