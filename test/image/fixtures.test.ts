/** Every fixture of QEMU's making, read through the library and through `convert`. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import type { Image } from '../../src/image/api/image.js';
import { openImage } from '../../src/image/graph/open.js';
import { convert } from '../../src/jobs/convert.js';
import { fixtures, unpackFixtures } from '../support/fixtures.js';

/** Reads pieces of odd lengths, many at a time, so that runs are cut in every place. */
async function contentHash(image: Image): Promise<string | undefined> {
  if (image.size > 2 ** 30) return undefined;
  const content = Buffer.alloc(image.size);
  const reads: Promise<void>[] = [];
  const piece = 1_000_003;
  for (let offset = 0; offset < image.size; offset += piece) {
    reads.push(image.read(content.subarray(offset, offset + piece), offset));
  }
  await Promise.all(reads);
  return createHash('sha256').update(content).digest('hex');
}

test('every fixture reads as the manifest says', async (t) => {
  const folder = await unpackFixtures(t);
  for (const { file, format, sha256, virtualSize, refused, snapshots } of fixtures) {
    await t.test(file, async () => {
      const target = path.join(folder, file);
      const source = { format, readOnly: true };
      if (refused !== undefined) {
        await assert.rejects(
          async () => {
            const image = await openImage(target, source);
            await contentHash(image).finally(() => image.close());
          },
          (error) => error instanceof CowherdError && error.filename !== undefined,
        );
        return;
      }
      const image = await openImage(target, source);
      assert.equal(image.size, virtualSize);
      assert.equal(await contentHash(image), sha256);
      await image.close();
      if (sha256 === undefined) return;
      const raw = path.join(folder, 'converted.raw');
      await convert(target, raw, { from: format, to: 'raw' });
      assert.equal(
        createHash('sha256')
          .update(await readFile(raw))
          .digest('hex'),
        sha256,
      );
      for (const snapshot of snapshots) {
        const state = await openImage(target, { ...source, snapshot: snapshot.id });
        assert.equal(await contentHash(state), snapshot.sha256, `snapshot ${snapshot.name}`);
        await state.close();
      }
    });
  }
});
