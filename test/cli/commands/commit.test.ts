/** `commit` leaves the images, and says and refuses, what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { mkdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, run, runOk } from '../../support/tools.js';
import {
  type NamedImage,
  assertTwins,
  makeTwins,
  qemuImg,
  qemuIo,
  runBoth,
} from '../../support/twins.js';

/** Formats and options of a base and of what stands on it. */
const pairs: Readonly<Record<string, { base: readonly string[]; top: readonly string[] }>> = {
  'a raw base': { base: ['-f', 'raw'], top: [] },
  'a qcow2 base': { base: ['-f', 'qcow2'], top: [] },
  'small clusters above large ones': {
    base: ['-f', 'qcow2', '-o', 'cluster_size=1M'],
    top: ['-o', 'cluster_size=4k'],
  },
  'large clusters above small ones': {
    base: ['-f', 'qcow2', '-o', 'cluster_size=512'],
    top: ['-o', 'cluster_size=2M'],
  },
  'version 2 both': {
    base: ['-f', 'qcow2', '-o', 'compat=0.10'],
    top: ['-o', 'compat=0.10'],
  },
  'subclusters both': {
    base: ['-f', 'qcow2', '-o', 'extended_l2=on'],
    top: ['-o', 'extended_l2=on'],
  },
  'subclusters above small clusters': {
    base: ['-f', 'qcow2', '-o', 'cluster_size=4k'],
    top: ['-o', 'extended_l2=on'],
  },
  'a data file above': { base: ['-f', 'qcow2'], top: ['-o', 'data_file=data'] },
  'a data file below': { base: ['-f', 'qcow2', '-o', 'data_file=data'], top: [] },
  'lazy counts, wide and narrow ones': {
    base: ['-f', 'qcow2', '-o', 'lazy_refcounts=on,refcount_bits=64'],
    top: ['-o', 'lazy_refcounts=on,refcount_bits=1'],
  },
};

const sizes = { 'as long': '24M', 'a shorter base': '9M', 'a longer base': '40000512' };

for (const [name, { base, top }] of Object.entries(pairs)) {
  for (const [relation, size] of Object.entries(sizes)) {
    test(`${name}, ${relation}`, async (t) => {
      if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
      const format = base[1];
      const made = await makeTwins(t, async (folder) => {
        await qemuImg(folder, 'create', '-q', ...base, 'base', size);
        await qemuIo(folder, format, 'base', 'write -P 1 0 5M', 'write -P 2 6100k 700k');
        const below = ['-b', 'base', '-F', format];
        await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...below, ...top, 'top', '24M');
        const io = ['write -P 3 1M 200k', 'write -P 4 12300k 1500k', 'write -P 5 1536 512'];
        const zeroes = ['write -z 2M 300k', 'discard 4M 1M', 'write -z -u 20M 1M'];
        await qemuIo(folder, 'qcow2', 'top', ...io, ...zeroes, 'write -P 0 3M 64k');
      });
      const images: NamedImage[] = [
        { name: 'base', format, isOverwritten: true },
        { name: 'top', format: 'qcow2' },
      ];
      await runBoth(made, ['commit', '-f', 'qcow2', '-d', 'top']);
      await assertTwins(made, images, 'not emptied');
      await runBoth(made, ['commit', '-f', 'qcow2', 'top']);
      await assertTwins(made, images, 'emptied');
      for (const folder of [made.mine, made.theirs]) {
        await qemuIo(folder, 'qcow2', 'top', 'write -P 9 5M 100k', 'write -P 8 22M 1M');
      }
      await runBoth(made, ['commit', 'top']);
      await assertTwins(made, images, 'once more');
    });
  }
}

test('a chain, into the image in its middle and into its root', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const [middleSize, base] of [
    ['16M', 'middle'],
    ['16M', 'root'],
    ['6M', 'root'],
    ['6M', 'middle'],
    ['30M', './root'],
  ]) {
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', 'raw', 'root', '10M');
      await qemuIo(folder, 'raw', 'root', 'write -P 1 0 10M');
      const on = (name: string, format: string): string[] => ['-b', name, '-F', format];
      const create = ['create', '-q', '-f', 'qcow2'];
      await qemuImg(folder, ...create, ...on('root', 'raw'), 'middle', middleSize);
      await qemuIo(folder, 'qcow2', 'middle', 'write -P 2 3M 1M', 'write -z 4M 1M');
      await qemuImg(folder, ...create, ...on('middle', 'qcow2'), 'top', '16M');
      await qemuIo(folder, 'qcow2', 'top', 'write -P 3 3500k 1M', 'write -P 4 15M 500k');
    });
    await runBoth(made, ['commit', '-b', base, 'top']);
    const images: NamedImage[] = [
      { name: 'root', format: 'raw' },
      { name: 'middle', format: 'qcow2' },
      { name: 'top', format: 'qcow2' },
    ];
    await assertTwins(made, images, `middle ${middleSize}, into ${base}`);
  }
});

test('compressed clusters, snapshots and bitmaps', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'base', '16M');
    const below = ['-b', 'base', '-F', 'qcow2'];
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...below, 'top');
    await qemuIo(folder, 'qcow2', 'top', 'write -c -P 3 1M 64k', 'write -c -P 4 7M 1M');
    await qemuImg(folder, 'snapshot', '-c', 'kept', 'top');
    await qemuIo(folder, 'qcow2', 'top', 'write -P 5 7500k 1M');
  });
  await runBoth(made, ['commit', 'top']);
  await assertTwins(
    made,
    [
      { name: 'base', format: 'qcow2' },
      { name: 'top', format: 'qcow2' },
    ],
    'a snapshot above',
  );
  for (const folder of [made.mine, made.theirs]) {
    await qemuImg(folder, 'convert', '-l', 'kept', '-O', 'raw', 'top', 'kept');
  }
  await runOk('cmp', [path.join(made.mine, 'kept'), path.join(made.theirs, 'kept')]);
});

test('an emptied image that had grown is as long as a new one', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'base', '64M');
    const below = ['-b', 'base', '-F', 'raw', '-o', 'cluster_size=512,refcount_bits=64'];
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...below, 'top', '128k');
    await qemuIo(folder, 'qcow2', 'top', 'write 0 128k');
    await qemuImg(folder, 'resize', '-q', 'top', '640k');
    await qemuIo(folder, 'qcow2', 'top', 'write -P 2 128k 512k');
  });
  const before = (await stat(path.join(made.mine, 'top'))).size;
  await runBoth(made, ['commit', 'top']);
  await assertTwins(made, [{ name: 'top', format: 'qcow2' }], 'emptied');
  assert.ok((await stat(path.join(made.mine, 'top'))).size < before / 100);
});

test('a QED base, which grows', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const [size, grown] of [
    ['24M', '24M'],
    ['9M', '24M'],
    ['40000512', '40000512'],
  ]) {
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', 'qed', 'base', size);
      await qemuIo(folder, 'qed', 'base', 'write -P 1 0 5M', 'write -P 2 6100k 700k');
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qed', 'top', grown);
      const io = ['write -P 3 1M 200k', 'write -P 4 12300k 1500k', 'write -P 5 1536 512'];
      await qemuIo(folder, 'qcow2', 'top', ...io, 'write -z 2M 300k', 'write -z -u 8M 5M');
    });
    await runBoth(made, ['commit', 'top']);
    for (const name of ['base', 'top']) await qemuImg(made.mine, 'check', '-q', name);
    await qemuImg(made.mine, 'compare', 'base', path.join(made.theirs, 'base'));
    await qemuImg(made.mine, 'compare', 'top', path.join(made.theirs, 'top'));
  }
});

for (const [format, ...more] of [
  ['vmdk'],
  ['vmdk', '-o', 'subformat=monolithicFlat'],
  ['vdi'],
  ['vdi', '-o', 'static=on'],
  ['vhdx'],
  ['vpc'],
  ['vpc', '-o', 'subformat=fixed'],
]) {
  test(`a shorter base that cannot grow stays what it is: ${[format, ...more].join(' ')}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', format, ...more, 'base', '4M');
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', format, 'top', '9M');
      await qemuIo(folder, 'qcow2', 'top', 'write -P 3 1M 64k');
    });
    assert.equal(await runBoth(made, ['commit', 'top']), 1);
    await qemuImg(made.mine, 'compare', '-f', format, '-F', format, 'base', '../theirs/base');
    await qemuImg(made.mine, 'compare', 'top', '../theirs/top');
  });
}

test('what is said and refused', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'base', '8M');
    const on = (name: string): string[] => ['-b', name, '-F', 'qcow2'];
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...on('base'), 'top');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...on('base'), 'lost');
    await qemuImg(folder, 'rebase', '-u', ...on('gone'), 'lost');
    await qemuIo(folder, 'qcow2', 'top', 'write -P 3 1M 64k');
    await mkdir(path.join(folder, 'sub'));
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', path.join('sub', 'base'), '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...on('base'), path.join('sub', 'top'));
  });
  for (const words of [
    [],
    ['top', 'base'],
    ['none'],
    ['base'],
    ['lost'],
    ['-b', 'none', 'top'],
    ['-b', 'top', 'top'],
    ['-b', '', 'top'],
    ['-t', 'odd', 'top'],
    ['-r', 'odd', 'top'],
    ['-r', '16E', 'top'],
    ['-f', 'odd', 'top'],
    ['-f', 'qcow2', '--image-opts', 'driver=qcow2,file.filename=top'],
    ['--image-opts', 'driver=qcow2,file.filename=top'],
    ['-q', '-p', 'top'],
    ['-t', 'unsafe', '-r', '1G', 'top'],
    ['-t', 'none', 'top'],
    ['-b', path.join('..', 'mine', 'base'), path.join('..', 'mine', 'top')],
    ['-b', path.join('sub', 'base'), path.join('sub', 'top')],
    ['-b', 'base', path.join('sub', 'top')],
  ]) {
    await runBoth(made, ['commit', ...words]);
  }
  const shown = await runCowherd(['commit', '-p', '-d', 'top'], made.mine);
  assert.match(
    shown.stdout,
    /^ {4}\(0\.00\/100%\)\r[^]* {4}\(100\.00\/100%\)\r\nImage committed\.\n$/,
  );
  await rm(path.join(made.mine, 'base'));
  const { code, stderr } = await runCowherd(['commit', 'top'], made.mine);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^cowherd: Could not open 'top': [^\n]*'base': No such file or directory\n$/,
  );
});

test("a full disk is told of with its place, but in qemu-img's words by its name", async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const full = { event: 'write_aio', errno: 28, once: true };
  const made = await makeTwins(t, async (folder) => {
    const file = path.join(folder, 'base');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', file, '1M');
    const image = { driver: 'file', filename: file };
    const driver = { driver: 'blkdebug', 'inject-error': [full], image };
    const below = `json:${JSON.stringify({ driver: 'qcow2', file: driver })}`;
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2', 'top', '1M');
    await qemuIo(folder, 'qcow2', 'top', 'write -P 3 0 64k');
  });
  const expected = await run('qemu-img', ['commit', 'top'], { cwd: made.theirs });
  assert.deepEqual(await runCowherd(['commit', 'top'], made.mine, 'qemu-img'), expected);
  assert.equal(expected.code, 1);
  const { stderr } = await runCowherd(['commit', 'top'], made.mine);
  assert.match(
    stderr,
    /^cowherd: Block job failed: Could not write to '[^']*base' at byte \d+: No space left on device\n$/,
  );
});
