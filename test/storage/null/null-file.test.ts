/** Disks that keep nothing, beside QEMU's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { attachStorageFile, openStorageFile } from '../../../src/storage/registry.js';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, temporaryFolder } from '../../support/tools.js';

test('what is written to a disk that keeps nothing is gone, and it has its size', async () => {
  const image = await openImage('null-co://', { format: 'raw', null: { size: 1536 } });
  assert.equal(image.size, 1536);
  await image.write(new Uint8Array(512).fill(7), 512);
  const read = new Uint8Array(512).fill(1);
  await image.read(read, 512);
  assert.deepEqual(read, new Uint8Array(512));
  await assert.rejects(image.write(new Uint8Array(512), 1536), {
    code: 'ERR_COWHERD_OUT_OF_RANGE',
  });
  await image.close();
});

test('each request lasts as long as is said, and other threads have the same disk', async () => {
  const file = await openStorageFile('null-aio://', { null: { size: 512, latencyNs: 20e6 } });
  const other = await attachStorageFile(structuredClone(file.handle!()!));
  const begin = performance.now();
  await other.read(new Uint8Array(512), 0);
  assert.ok(performance.now() - begin >= 19);
  assert.equal(await other.size(), 512);
  await assert.rejects(other.write(new Uint8Array(1), 512), { code: 'ERR_COWHERD_NO_SPACE' });
  await Promise.all([file.close(), other.close()]);
});

test('names of such disks are those of QEMU', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const name of [
    'null-co://',
    'null-aio://',
    'json:{"driver":"null-co","size":"1M","read-zeroes":true}',
    'json:{"driver":"raw","file":{"driver":"null-aio","size":1048576}}',
  ]) {
    const words = ['info', '--output=json', name];
    const [ours, theirs] = [await runCowherd(words, folder), await runQemuImg(words, folder)];
    assert.equal(ours.code, 0, ours.stderr);
    assert.equal(sizeIn(ours.stdout), sizeIn(theirs.stdout), name);
  }
  for (const words of [
    ['info', 'null-co://x'],
    ['info', 'null-aio://x'],
    ['create', 'null-co://', '1M'],
  ]) {
    const [ours, theirs] = [await runCowherd(words, folder), await runQemuImg(words, folder)];
    assert.equal(ours.code, theirs.code);
    assert.match(ours.stderr, /^[^\n]+\n$/);
  }
});

function sizeIn(text: string): unknown {
  return (JSON.parse(text) as Record<string, unknown>)['virtual-size'];
}
