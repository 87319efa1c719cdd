/** Disks beyond 2^53 bytes, as far as the format has them: made, described, mapped and checked exactly. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { assertSame, runCowherd } from '../support/both-tools.js';
import { DamagedImage } from '../support/damaged-image.js';
import { needsTool, run, runOk, temporaryFolder } from '../support/tools.js';

test('disks up to what the largest L1 table maps', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const [options, size] of [
    ['cluster_size=256k', '32P'],
    ['cluster_size=256k', '9007199254740993'],
    ['cluster_size=2M', '2E'],
    ['cluster_size=2M', '2305843009213693953'],
    ['cluster_size=64k', '2P'],
    ['cluster_size=64k', '2251799813685249'],
    ['cluster_size=64k', '1048576T'],
    ['cluster_size=512', '128G'],
    ['cluster_size=512', '129G'],
  ]) {
    await t.test(`${options} ${size}`, async () => {
      const words = ['create', '-f', 'qcow2', '-o', options, 'disk.qcow2', size];
      const { code } = await assertSame(words, folder);
      if (code !== 0) return;
      await assertSame(['info', 'disk.qcow2'], folder);
      await assertSame(['info', '--output=json', 'disk.qcow2'], folder);
      await assertSame(['check', '--output=json', 'disk.qcow2'], folder);
    });
  }
});

test('what lies beyond 2^53 is written and read by whole sectors', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: '32P', clusterSize: '256k' });
  const offset = 2 ** 55 - 1024 * 1024;
  const image = await openImage(file);
  const content = new Uint8Array(8192).fill(7);
  await image.write(content, offset + 512);
  await assert.rejects(image.write(content.subarray(1), offset), {
    code: 'ERR_COWHERD_OUT_OF_RANGE',
  });
  await image.close();
  const commands = [`read -P 7 ${offset + 512} 8k`, `read -P 0 ${offset} 512`];
  const read = await run('qemu-io', ['-r', ...commands.flatMap((text) => ['-c', text]), file]);
  assert.equal(read.code, 0, read.stdout);
  await runOk('qemu-img', ['check', file]);
  const { stdout } = await runCowherd(['map', '--output=json', 'disk.qcow2'], folder);
  const [first, second] = stdout.split('\n');
  assert.match(first, /"start": 0, "length": 36028797017915392,/);
  assert.match(second, /"start": 36028797017915392, "length": 262144,.*"data": true/);
});

test('a size in the header that no L1 table can map', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: '4G' });
  for (const size of [2n ** 60n, 2n ** 60n - 512n, 2n ** 54n, 2n ** 64n - 1n]) {
    const image = new DamagedImage(file);
    image.bytes.writeBigUInt64BE(size, 24);
    image.save();
    const { code } = await runCowherd(['info', 'disk.qcow2'], folder);
    assert.equal(code, 1);
    if (size === 2n ** 60n) {
      await assertSame(['check', 'disk.qcow2'], folder);
      await assertSame(['info', 'disk.qcow2'], folder);
    }
  }
});
