/** Writing to an image on a disk that fills up, and goes on when there is room again. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import type { CreateImageOptions } from '../../src/image/api/options.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { fill, smallDisk } from '../support/small-disk.js';
import { needsTool, run } from '../support/tools.js';

const mib = 1024 * 1024;
const pieceBytes = 96 * 1024;
const pieces = 30;

const geometries: readonly Omit<CreateImageOptions, 'format' | 'size'>[] = [
  {},
  { clusterSize: 512 },
  { clusterSize: 4096, refcountBits: 1 },
  { extendedL2: true, lazyRefcounts: true },
];

/** The content of a piece, of which no part is zero. */
function piece(index: number): Uint8Array {
  const digest = createHash('sha256').update(String(index)).digest();
  return Buffer.alloc(pieceBytes, Buffer.concat([Buffer.from([1, index + 1]), digest]));
}

for (const options of geometries) {
  test(`after room was made, the same writes succeed: ${JSON.stringify(options)}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const disk = await smallDisk(t, 5 * mib);
    if (disk === undefined) return;
    const file = path.join(disk, 'image.qcow2');
    await createImage(file, { format: 'qcow2', size: '64M', ...options });
    const image = await openImage(file);
    const filler = await fill(disk, 4 * mib);
    // Apart, so that every piece has tables of its own with small clusters.
    const offset = (index: number): number => index * 2 * mib + 1000;
    const write = (index: number): Promise<void> => image.write(piece(index), offset(index));
    const failed: number[] = [];
    await Promise.all(
      Array.from({ length: pieces }, (_, index) =>
        write(index).catch((error: unknown) => {
          assert.ok(error instanceof CowherdError, String(error));
          assert.equal(error.code, 'ERR_COWHERD_NO_SPACE');
          assert.equal(error.filename, file);
          failed.push(index);
        }),
      ),
    );
    assert.ok(failed.length > 0);

    await rm(filler);
    for (const index of failed) await write(index);
    await image.flush();
    const buffer = new Uint8Array(pieceBytes);
    for (let index = 0; index < pieces; index++) {
      await image.read(buffer, offset(index));
      assert.ok(Buffer.from(piece(index)).equals(buffer), `piece ${index}`);
    }
    await image.close();

    const { code, stdout, stderr } = await run('qemu-img', ['check', file]);
    assert.equal(code, 0, stdout + stderr);
  });
}

test('a flush that fails is an error, and the next one makes everything durable', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const disk = await smallDisk(t, 4 * mib);
  if (disk === undefined) return;
  const file = path.join(disk, 'image.qcow2');
  await createImage(file, { format: 'qcow2', size: '1G', clusterSize: 65536 });
  const image = await openImage(file);
  const filler = await fill(disk, 3.75 * mib);
  const codes = new Set<string>();
  for (let index = 0; index < 64; index++) {
    try {
      // One cluster here and there, with an L2 table each.
      await image.write(piece(index).subarray(0, 512), index * 16 * mib);
      await image.flush();
    } catch (error) {
      codes.add((error as CowherdError).code);
    }
  }
  assert.deepEqual([...codes], ['ERR_COWHERD_NO_SPACE']);
  await rm(filler);
  await image.write(piece(0), 0);
  await image.flush();
  await image.close();
  const { code, stdout, stderr } = await run('qemu-img', ['check', file]);
  assert.equal(code, 0, stdout + stderr);
});

test('closing on a full disk fails, lets the file go, and leaves leaks at most', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const disk = await smallDisk(t, 4 * mib);
  if (disk === undefined) return;
  const file = path.join(disk, 'image.qcow2');
  await createImage(file, { format: 'qcow2', size: '1G', clusterSize: 4096 });
  const image = await openImage(file);
  await fill(disk, 3.75 * mib);
  const writes = Array.from({ length: 64 }, (_, index) =>
    image.write(piece(index).subarray(0, 512), index * 16 * mib),
  );
  const results = await Promise.allSettled(writes);
  assert.ok(results.some(({ status }) => status === 'rejected'));
  await image.close().catch((error: unknown) => {
    assert.equal((error as CowherdError).code, 'ERR_COWHERD_NO_SPACE');
  });
  // It is not locked any more.
  const { code, stdout, stderr } = await run('qemu-img', ['check', file]);
  assert.ok([0, 3].includes(code), stdout + stderr);
  const again = await openImage(file);
  await again.close();
});
