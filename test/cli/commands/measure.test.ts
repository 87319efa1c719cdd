/** `measure` tells what qemu-img does. */
import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { measure } from '../../../src/jobs/measure.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { assertSame } from '../../support/both-tools.js';
import { fixtures, unpackFixtures, warnedAbout } from '../../support/fixtures.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const targets: readonly (readonly string[])[] = [
  ['-O', 'raw'],
  ['-O', 'qcow2'],
  ['-O', 'qcow2', '-o', 'cluster_size=512'],
  ['-O', 'qcow2', '-o', 'cluster_size=2M,refcount_bits=1'],
  ['-O', 'qcow2', '-o', 'extended_l2=on'],
  ['-O', 'qcow2', '-o', 'compat=0.10'],
  ['-O', 'qcow2', '-o', 'preallocation=full'],
  ['-O', 'qcow2', '-o', 'refcount_bits=64,preallocation=metadata'],
];

test('empty disks', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const target of targets) {
    for (const size of [
      '0',
      '1',
      '512',
      '1000',
      '65537',
      '1G',
      '1T',
      '64T',
      '1P',
      '8E',
      'x',
      '9E',
    ]) {
      await assertSame(['measure', ...target, '--size', size], folder);
    }
    await assertSame(['measure', '--output=json', ...target, '--size', '3G'], folder);
  }
});

test('fixtures', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  for (const [index, { file, format, sha256 }] of fixtures.entries()) {
    // Of some formats the real tool does not know what is stored, and counts all of it.
    if (sha256 === undefined || /^(dmg|cloop|bochs|vhdx)$/.test(format)) continue;
    const words = ['-f', format, ...targets[index % targets.length], file];
    await assertSame(['measure', ...words], folder, { stderr: !warnedAbout.has(file) });
    await assertSame(['measure', '--output=json', '-f', format, '-O', 'qcow2', file], folder, {
      stderr: !warnedAbout.has(file),
    });
  }
});

test('sources with data, bitmaps, snapshots and a backing file', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const options = { cwd: folder };
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', 'base', '200M'], options);
  await runOk('qemu-io', ['-c', 'write 3000k 7M', '-c', 'write -z 20M 5M', 'base'], options);
  await runOk('qemu-img', ['snapshot', '-c', 'one', 'base'], options);
  await runOk('qemu-io', ['-c', 'write 100M 1M', 'base'], options);
  await runOk(
    'qemu-img',
    ['create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', 'top'],
    options,
  );
  await runOk('qemu-io', ['-c', 'write 50M 1M', 'top'], options);
  for (const name of ['b', 'another bitmap'])
    await runOk('qemu-img', ['bitmap', '--add', 'top', name], options);
  await runOk('qemu-img', ['bitmap', '--add', '-g', '1M', 'top', 'c'], options);
  for (const target of targets) {
    await assertSame(['measure', ...target, 'base'], folder);
    await assertSame(['measure', ...target, 'top'], folder);
    await assertSame(['measure', ...target, '-l', 'one', 'base'], folder);
    await assertSame(['measure', ...target, '-l', 'none', 'base'], folder);
  }
  await assertSame(
    ['measure', '-O', 'qcow2', '-o', 'backing_file=base,backing_fmt=qcow2', 'top'],
    folder,
  );
  for (const words of [
    [],
    ['base', 'top'],
    ['--size', '1G', 'base'],
    ['--size', '1G', '-f', 'raw'],
  ]) {
    await assertSame(['measure', ...words], folder, { stderr: false });
  }
  await assertSame(['measure', '-O', 'vmdk', '--size', '1G'], folder);
  await assertSame(['measure', '-O', 'none', '--size', '1G'], folder);
  await assertSame(['measure', '-O', 'qcow2', 'none'], folder);
});

test('a program hears what an image comes to', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = ['source', 'copy'].map((name) => path.join(folder, name));
  await createImage(source, { format: 'qcow2', size: '64M' });
  await using image = await openImage(source);
  await image.write(Buffer.alloc(5 << 20, 3), 1 << 20);
  await image.flush();
  const { required, fullyAllocated } = await measure(image, { format: 'qcow2' });
  const named = await measure(source, { format: 'qcow2', image: { forceShare: true } });
  assert.deepEqual(named.required, required);
  await createImage(copy, { format: 'qcow2', size: '64M', preallocation: 'full' });
  assert.ok((await stat(copy)).size <= fullyAllocated);
  assert.ok((await stat(source)).size <= required);
  await assert.rejects(measure({ size: '1G' }, { format: 'vdi' }), {
    code: 'ERR_COWHERD_UNSUPPORTED',
  });
});
