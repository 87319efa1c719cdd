/** Opening: what is refused and how it is worded, creating, cache modes, handles. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { addon } from '../../../src/native/addon.js';
import {
  attachStorageFile,
  createStorageFile,
  openStorageFile,
} from '../../../src/storage/registry.js';
import { reserveBlocks } from '../../../src/storage/preallocate.js';
import type { CacheMode } from '../../../src/storage/storage.js';
import { fill, smallDisk } from '../../support/small-disk.js';
import { diskFolder } from '../backends.js';

test('what is not there, or is no regular file, is refused as qemu-img words it', async (t) => {
  const folder = diskFolder(t);
  const missing = path.join(folder, 'missing');
  await assert.rejects(openStorageFile(missing), {
    code: 'ERR_COWHERD_NOT_FOUND',
    message: `Could not open '${missing}': No such file or directory`,
    filename: missing,
  });
  const pipe = path.join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  for (const [filename, readOnly] of [
    [folder, false],
    [folder, true],
    ['/dev/null', false],
    [pipe, true],
    [pipe, false],
  ] as const) {
    await assert.rejects(openStorageFile(filename, { readOnly }), {
      code: 'ERR_COWHERD_UNSUPPORTED',
      message: `'file' driver requires '${filename}' to be a regular file`,
    });
  }
  await assert.rejects(openStorageFile(`${folder}/none/file`), { code: 'ERR_COWHERD_NOT_FOUND' });
  await assert.rejects(openStorageFile('x'.repeat(300)), { message: /File name too long/ });
});

test('a file without permission is refused', async (t) => {
  if (process.getuid?.() === 0) {
    t.skip('everything is permitted to root');
    return;
  }
  const filename = path.join(diskFolder(t), 'file');
  writeFileSync(filename, 'x');
  chmodSync(filename, 0o400);
  await assert.rejects(openStorageFile(filename), {
    code: 'ERR_COWHERD_ACCESS',
    message: `Could not open '${filename}': Permission denied`,
  });
});

test('names outside ASCII', async (t) => {
  const filename = path.join(diskFolder(t), 'größe 大きさ.img');
  const file = await createStorageFile(filename);
  await file.write(new Uint8Array([1, 2, 3]), 0);
  await file.close();
  assert.deepEqual([...readFileSync(filename)], [1, 2, 3]);
});

test('create empties what is there, but not what is in use', async (t) => {
  const filename = path.join(diskFolder(t), 'file');
  writeFileSync(filename, 'something');
  const file = await createStorageFile(filename);
  assert.equal(await file.size(), 0);
  await file.write(new Uint8Array(10).fill(1), 0);
  if (addon !== undefined) {
    await assert.rejects(createStorageFile(filename), { code: 'ERR_COWHERD_LOCKED' });
    assert.equal(await file.size(), 10);
  }
  await file.close();
  assert.equal(statSync(filename).size, 10);
});

test('a read-only file refuses changes', async (t) => {
  const filename = path.join(diskFolder(t), 'file');
  writeFileSync(filename, 'something');
  const file = await openStorageFile(filename, { readOnly: true });
  const refused = { code: 'ERR_COWHERD_READ_ONLY' };
  await assert.rejects(file.write(new Uint8Array(1), 0), refused);
  await assert.rejects(file.writeVector([new Uint8Array(1)], 0), refused);
  await assert.rejects(file.truncate(0), refused);
  await assert.rejects(file.discard(0, 1), refused);
  await assert.rejects(file.writeZeroes(0, 1, true), refused);
  await file.flush();
  await file.close();
});

test('every cache mode reads what it wrote', async (t) => {
  const folder = diskFolder(t);
  const modes: CacheMode[] = ['writeback', 'none', 'writethrough', 'directsync', 'unsafe'];
  for (const cache of modes) {
    const filename = path.join(folder, cache);
    const file = await createStorageFile(filename, { cache });
    const data = Uint8Array.from({ length: 10_000 }, (_, index) => index & 0xff);
    await file.write(data, 100);
    await file.writeZeroes(2000, 3000, true);
    await file.flush();
    const back = new Uint8Array(10_000);
    await file.read(back, 100);
    assert.deepEqual(back, data.fill(0, 1900, 4900));
    await file.close();
    assert.equal(statSync(filename).size, 10_100);
  }
});

test('a handle opens the same file again, as another thread would', async (t) => {
  const filename = path.join(diskFolder(t), 'file');
  const file = await createStorageFile(filename);
  await file.write(new Uint8Array([1, 2, 3]), 0);
  const handle = structuredClone(file.handle?.());
  assert.ok(handle !== undefined);
  const attached = await attachStorageFile(handle);
  await file.close();
  const back = new Uint8Array(3);
  await attached.read(back, 0);
  assert.deepEqual([...back], [1, 2, 3]);
  await attached.close();
  if (addon !== undefined) {
    await assert.rejects(attachStorageFile(handle), { code: 'ERR_COWHERD_CLOSED' });
  }
});

test('where there is no room for all that a file is to grow by, none of it is taken', async (t) => {
  const disk = await smallDisk(t, 4 << 20);
  if (disk === undefined) return;
  const file = await createStorageFile(path.join(disk, 'file'));
  await file.truncate(64 << 20, true);
  assert.equal(await file.size(), 64 << 20);
  await fill(disk, 3 << 20);
  await file.write(new Uint8Array(65536).fill(1), 32 << 20);
  await file.close();
});

test('blocks are reserved for a range without a change of its bytes or the length', async (t) => {
  const filename = path.join(diskFolder(t), 'file');
  const file = await createStorageFile(filename);
  await file.truncate(64 << 20);
  const data = Uint8Array.from({ length: 300_000 }, (_, index) => (index % 251) + 1);
  await file.write(data, 34 << 20);
  assert.equal(await reserveBlocks(file, 32 << 20, 16 << 20), addon !== undefined);
  await file.write(data, 40 << 20);
  for (const place of [34 << 20, 40 << 20, 45 << 20]) {
    const back = new Uint8Array(data.length);
    await file.read(back, place);
    assert.deepEqual(back, place === 45 << 20 ? new Uint8Array(data.length) : data);
  }
  assert.equal(await file.size(), 64 << 20);
  const mebibytes = async (): Promise<number> =>
    Math.floor((await file.allocatedSize())! / 2 ** 20);
  if (addon !== undefined) {
    assert.equal(await mebibytes(), 16);
    assert.ok(await file.discard(36 << 20, 20 << 20));
    assert.equal(await mebibytes(), 4);
  }
  await file.close();
});
