/** Checking an image while it is open for writing: what queues hold in reserve is no leak. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { attachImage } from '../../../../src/image/threads/attach.js';
import { createImage } from '../../../../src/image/graph/create.js';
import { openImage } from '../../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

const data = new Uint8Array(65536).fill(7);

test('an image that is open for writing has no leaks', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: '64M' });
  const image = await openImage(file);
  const queue = await image.openQueue();
  const other = await attachImage(image.handle());
  const writers = [image, queue, other];
  for (const [index, writer] of writers.entries()) {
    for (let cluster = 0; cluster < 6; cluster++) {
      await writer.write(data, (index * 8 + cluster) * data.length);
    }
  }
  await image.discard(0, 3 * data.length);
  for (const checker of [image, other]) {
    const { leaks, corruptions, findings } = await checker.check();
    assert.deepEqual({ leaks, corruptions }, { leaks: 0, corruptions: 0 }, findings[0]?.message);
  }
  // They go on with what they hold.
  for (const [index, writer] of writers.entries()) {
    await writer.write(data, (32 + index) * data.length);
  }
  const requests = Array.from({ length: 40 }, (_, index) =>
    writers[index % 3].write(data, (40 + index) * data.length),
  );
  const [{ leaks }] = await Promise.all([image.check(), ...requests]);
  assert.equal(leaks, 0);
  await other.close();
  await image.close();
  assert.equal((await run('qemu-img', ['check', file])).code, 0);
});
