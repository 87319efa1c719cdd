/** New VMDK images are, byte for byte, those of QEMU, but for their identity; and split ones are written to. */
import assert from 'node:assert/strict';
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { Random } from '../../stress/random.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { makeTwins, qemuImg, qemuIo, runBoth } from '../../support/twins.js';

const gib = 2 ** 30;

/** The identity is drawn; ours has all of its digits, and zeroes after it move. */
function withoutIdentity(bytes: Buffer): string {
  return bytes
    .toString('latin1')
    .replace(/^CID=[0-9a-f]+$/m, 'CID=')
    .replaceAll('\0', '');
}

for (const [options, name, ...sizes] of [
  ['subformat=monolithicSparse', 'disk.vmdk', '5000192', '10G'],
  ['subformat=monolithicSparse,zeroed_grain=on,toolsversion=9', 'disk', '1M'],
  ['subformat=monolithicFlat', 'a.b.c', '5000192', '0'],
  ['subformat=monolithicFlat,adapter_type=lsilogic,hwversion=7', 'disk', '3G'],
  ['subformat=twoGbMaxExtentFlat,compat6=on', 'disk.vmdk', '5G'],
  ['subformat=twoGbMaxExtentSparse', 'disk.vmdk', '5000192', '4G', '5G'],
  ['subformat=twoGbMaxExtentSparse,zeroed_grain=on,adapter_type=legacyESX', 'disk', '3G'],
  ['subformat=streamOptimized', 'disk.vmdk', '5000192', '10G'],
  ['subformat=streamOptimized,zeroed_grain=on', 'disk', '1M'],
] as const) {
  test(`${options}, as ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    for (const size of sizes) {
      const made = await makeTwins(t, () => Promise.resolve());
      await runBoth(made, ['create', '-f', 'vmdk', '-o', options, name, size]);
      const files = await readdir(made.theirs);
      assert.deepEqual(await readdir(made.mine), files);
      for (const file of files) {
        const [mine, theirs] = [made.mine, made.theirs].map((folder) => path.join(folder, file));
        if (options.includes('Flat') && file !== name) {
          assert.equal((await stat(mine)).size, (await stat(theirs)).size);
          continue;
        }
        const [ours, others] = [await readFile(mine), await readFile(theirs)];
        assert.equal(withoutIdentity(ours), withoutIdentity(others));
        if (ours.toString('latin1', 0, 4) === 'KDMV') assert.equal(ours.length, others.length);
      }
    }
  });
}

test('what is refused says what qemu-img says', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await makeTwins(t, () => Promise.resolve());
  for (const options of [
    'subformat=odd',
    'adapter_type=odd',
    'subformat=monolithicFlat,zeroed_grain=on',
    'subformat=twoGbMaxExtentFlat,compat6=on,hwversion=4',
  ]) {
    await runBoth(made, ['create', '-f', 'vmdk', '-o', options, 'disk', '1M']);
  }
});

test('writes across the extents of a split disk are found again by QEMU', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk.vmdk');
  const words = ['-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse'];
  await runCowherd(['create', '-q', ...words, 'disk.vmdk', '5G'], folder);
  await qemuImg(folder, 'create', '-q', '-f', 'raw', 'model', '5G');
  const random = new Random(11);
  for (let round = 0; round < 3; round++) {
    await using image = await openImage(disk);
    await using model = await openImage(path.join(folder, 'model'), { format: 'raw' });
    const writes: Promise<void>[] = [];
    for (let index = 0; index < 30; index++) {
      const border = random.pick([0, 2 * gib, 4 * gib, 5 * gib - 262_144]);
      const offset = Math.max(0, border - 65_536 + 512 * random.below(200));
      const bytes = new Uint8Array(512 * (1 + random.below(250))).fill(1 + random.below(255));
      writes.push(image.write(bytes, offset));
      await writes.at(-1);
      await model.write(bytes, offset);
    }
  }
  await runOk('qemu-img', ['compare', '-f', 'vmdk', '-F', 'raw', disk, path.join(folder, 'model')]);
  await runOk('qemu-img', ['check', '-q', disk]);
});

test('a conversion that fails leaves no extent, and none overwrites its source', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk-flat.vmdk'), Buffer.alloc(65_536, 7));
  const words = ['convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=monolithicFlat'];
  const { code, stderr } = await runCowherd([...words, 'disk-flat.vmdk', 'disk.vmdk'], folder);
  assert.equal(code, 1);
  assert.match(stderr, /disk-flat\.vmdk' is the source/);
  assert.deepEqual(await readFile(path.join(folder, 'disk-flat.vmdk')), Buffer.alloc(65_536, 7));
  assert.deepEqual(await readdir(folder), ['disk-flat.vmdk']);
});

test('a new stream is filled by QEMU, or by this program, and by nobody when it holds something', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'source', '5000192');
    await qemuIo(folder, 'raw', 'source', 'write -P 3 64k 64k', 'write -P 4 4M 300k');
  });
  const words = ['-f', 'vmdk', '-o', 'subformat=streamOptimized'];
  await runBoth(made, ['create', ...words, 'disk', '5000192']);
  await qemuIo(made.mine, 'vmdk', 'disk', 'write -c -P 3 64k 64k', 'write -c -P 4 4M 64k');
  const read = ['-c', 'read -P 3 64k 64k', '-c', 'read -P 4 4M 64k', '-c', 'read -P 0 0 64k'];
  const { code, stdout } = await runCowherd(['io', '-r', '-f', 'vmdk', ...read, 'disk'], made.mine);
  assert.equal(code, 0, stdout);
  const again = ['convert', '-n', '-f', 'raw', '-O', 'vmdk', 'source', 'disk'];
  const refused = await runCowherd(again, made.mine);
  assert.match(refused.stderr, /streamOptimized VMDK images are written once, from new\n$/);
  for (const folder of [made.mine, made.theirs]) {
    await runCowherd(['create', '-q', ...words, 'disk', '5000192'], folder);
    const filled = await runCowherd(again, folder);
    assert.equal(filled.code, 0, filled.stderr);
    await qemuImg(folder, 'compare', '-q', '-F', 'vmdk', '-f', 'raw', 'source', 'disk');
    await qemuImg(folder, 'create', '-q', ...words, 'disk', '5000192');
    await runCowherd(again, folder);
    await qemuImg(folder, 'compare', '-q', '-F', 'vmdk', '-f', 'raw', 'source', 'disk');
  }
});
