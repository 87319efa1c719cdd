/** An image's content comes in order, whole, and with its failures. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../src/image/graph/open.js';
import { readContent } from '../../src/jobs/content.js';
import { fixture, fixtures, unpackFixtures } from '../support/fixtures.js';

test('the content of fixtures has the SHA-256 of the manifest', async (t) => {
  const folder = await unpackFixtures(t);
  for (const { file, format, sha256 } of fixtures) {
    if (sha256 === undefined) continue;
    await using image = await openImage(path.join(folder, file), { format, readOnly: true });
    const hash = createHash('sha256');
    for await (const piece of readContent(image, { parallel: 2 })) hash.update(piece);
    assert.equal(hash.digest('hex'), sha256, file);
  }
});

test('progress is what was handed out, and a failed read ends it', async (t) => {
  const files = ['cluster-2M.qcow2', 'compressed-garbage.qcow2'];
  const folder = await unpackFixtures(t, files.map(fixture));
  await using image = await openImage(path.join(folder, files[0]), { readOnly: true });
  let last = 0;
  const onProgress = ({ doneBytes }: { readonly doneBytes: number }): void => {
    assert.ok(doneBytes > last);
    last = doneBytes;
  };
  let bytes = 0;
  for await (const piece of readContent(image, { onProgress })) bytes += piece.length;
  assert.deepEqual([bytes, last], [image.size, image.size]);

  await using damaged = await openImage(path.join(folder, files[1]), { readOnly: true });
  await assert.rejects(async () => {
    for await (const piece of readContent(damaged)) assert.ok(piece.length > 0);
  });
});
