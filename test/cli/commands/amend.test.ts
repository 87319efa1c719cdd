/** `amend` does, says and refuses what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, run } from '../../support/tools.js';
import {
  type Twins,
  assertTwins,
  makeTwins,
  qemuImg,
  qemuIo,
  runBoth,
} from '../../support/twins.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 12);

/** With small clusters: qemu-img looks at each count that a refcount table could lead to. */
const layouts: Readonly<Record<string, string>> = {
  'version 3': 'cluster_size=4k',
  'version 2': 'cluster_size=4k,compat=0.10',
  'clusters of 512 bytes': 'cluster_size=512',
  subclusters: 'cluster_size=16k,extended_l2=on',
  'narrow counts': 'cluster_size=4k,refcount_bits=1',
  'wide counts': 'cluster_size=4k,refcount_bits=64',
  'late counts': 'cluster_size=4k,lazy_refcounts=on',
  zstd: 'cluster_size=4k,compression_type=zstd',
};

/** What an image is to be, one after the other. */
const steps: readonly string[] = [
  'refcount_bits=8',
  'refcount_bits=64',
  'refcount_bits=1',
  'compat=0.10',
  'refcount_bits=16',
  'compat=0.10',
  'lazy_refcounts=on',
  'compat=v3',
  'lazy_refcounts=on',
  'size=12M',
  'size=3M',
  'size=0',
  'size=8M,refcount_bits=4,lazy_refcounts=off',
  'compat=0.10,refcount_bits=8',
  'refcount_bits=16',
  'compat=v2',
  'compat=1.1,refcount_bits=32',
];

async function makeDisk(
  t: TestContext,
  options: string,
  { backing = false }: { readonly backing?: boolean } = {},
): Promise<Twins> {
  return makeTwins(t, async (folder) => {
    await writeFile(path.join(folder, 'base'), Buffer.alloc(5 << 20, 3));
    const below = backing ? ['-b', 'base', '-F', 'raw'] : [];
    const words = ['-q', '-f', 'qcow2', '-o', options, ...below, 'disk', '8M'];
    await qemuImg(folder, 'create', ...words);
  });
}

async function io({ mine, theirs }: Twins, ...commands: readonly string[]): Promise<void> {
  for (const folder of [mine, theirs]) await qemuIo(folder, 'qcow2', 'disk', ...commands);
}

const disk = { name: 'disk', format: 'qcow2', slackClusters: 3 };

test('large clusters', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const size of ['64k', '2M']) {
    const made = await makeDisk(t, `cluster_size=${size}`, { backing: true });
    await io(made, 'write -P 1 0 1M', 'write -z 2M 4M');
    const widths = size === '64k' ? ['refcount_bits=32', 'refcount_bits=16'] : [];
    for (const step of [...widths, 'compat=0.10', 'compat=1.1', 'lazy_refcounts=on']) {
      await runBoth(made, ['amend', '-f', 'qcow2', '-o', step, 'disk']);
    }
    await assertTwins(made, [disk], size);
  }
});

for (const [name, options] of Object.entries(layouts)) {
  for (const backing of [false, true]) {
    const what = backing ? `${name}, above a backing file` : name;
    test(`one change after the other, ${what}`, async (t) => {
      if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
      const made = await makeDisk(t, options, { backing });
      await io(made, 'write -P 1 0 1M', 'write -z 2M 1M', 'write -z -u 4M 128k', 'write -z 0 64k');
      for (const [index, step] of steps.entries()) {
        await runBoth(made, ['amend', '-f', 'qcow2', '-o', step, 'disk']);
        if (index % 3 === 2) await assertTwins(made, [disk], `${what}, ${step}`);
        await io(
          made,
          `write -P ${index + 10} ${index * 100}k 100k`,
          `write -z ${index * 50}k 20k`,
        );
      }
      await assertTwins(made, [disk], what);
    });
  }
}

test('what is asked for at random', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const one = fc.constantFrom(
    // Of several of which one cannot be done, qemu-img does those before it.
    ...[
      'compat=0.10',
      'compat=1.1',
      'compat=1.1,refcount_bits=8',
      'lazy_refcounts=on',
      'lazy_refcounts=off',
      'size=9M',
    ],
    ...['refcount_bits=1', 'refcount_bits=4', 'refcount_bits=16', 'refcount_bits=64', 'size=6M'],
  );
  const step = fc.oneof(
    one.map((option) => ['amend', '-o', option, 'disk']),
    fc
      .tuple(
        fc.constantFrom('write -P 7', 'write -z', 'write -z -u', 'discard', 'write -c -P 8'),
        fc.nat(60),
      )
      .map(([action, at]) => ['io', `${action} ${at * 64}k 128k`]),
    fc.constantFrom(['snapshot', '-c', 'a', 'disk'], ['snapshot', '-d', 'a', 'disk']),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.values(layouts)),
      fc.boolean(),
      fc.array(step, { minLength: 3, maxLength: 10 }),
      async (options, backing, words) => {
        const made = await makeDisk(t, options, { backing });
        await io(made, 'write -P 1 1M 1M', 'write -z 3M 300k');
        for (const [kind, ...rest] of words) {
          if (kind === 'io') {
            // What qemu-io can do depends on what was done before.
            const ends = await Promise.all(
              [made.mine, made.theirs].map((cwd) =>
                run('qemu-io', ['-f', 'qcow2', '-c', rest[0], 'disk'], { cwd }),
              ),
            );
            assert.equal(ends[0].code, ends[1].code, rest[0]);
          } else await runBoth(made, [kind, ...rest]);
        }
        await assertTwins(
          made,
          [{ ...disk, slackClusters: 40, isStoredOtherwise: true }],
          JSON.stringify([options, backing, words]),
        );
      },
    ),
    { seed, numRuns: runs, endOnFailure: true },
  );
});

test('what cannot be done is refused as qemu-img refuses it, and nothing is changed', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'compat=1.1', { backing: true });
  await io(made, 'write -P 1 0 64k');
  const before = await readFile(path.join(made.mine, 'disk'));
  for (const list of [
    'cluster_size=4k',
    'preallocation=full',
    'foo=1',
    'foo=1,cluster_size=4k',
    'data_file=x',
    'data_file=',
    'data_file_raw=on',
    'backing_file=other,backing_fmt=raw',
    'backing_file=base',
    'backing_fmt=raw',
    'backing_file=',
    'extended_l2=on',
    'compression_type=zstd',
    'refcount_bits=3',
    'refcount_bits=0',
    'refcount_bits=128',
    'refcount_bits=x',
    'compat=x',
    'lazy_refcounts=perhaps',
    'size=big',
    'compat=0.10,refcount_bits=8',
    'compat=0.10,lazy_refcounts=on',
  ]) {
    assert.equal(await runBoth(made, ['amend', '-o', list, 'disk']), 1, list);
  }
  assert.ok(before.equals(await readFile(path.join(made.mine, 'disk'))));
  for (const words of [
    ['-o', 'backing_file=base,backing_fmt=raw', 'disk'],
    ['-f', 'qcow2', '-o', 'size=8M', '-q', 'disk'],
    ['-t', 'nonsense', '-o', 'size=8M', 'disk'],
    ['-t', 'none', '-o', 'size=8M', 'disk'],
    ['--image-opts', '-o', 'size=8M', 'driver=qcow2,file.filename=disk'],
    ['-o', 'size=8M', 'disk', 'more'],
    ['-o', 'size=8M'],
    ['-o', 'size=8M', 'nowhere'],
    ['-f', 'raw', '-o', 'size=8M', 'disk'],
    ['-f', 'raw', '-o', 'help'],
    ['-f', 'nosuch', '-o', 'help'],
    ['-f', 'nosuch', '-o', 'size=8M', 'disk'],
  ]) {
    await runBoth(made, ['amend', ...words]);
  }
});

test('what shares a cluster more often than narrow counts can say keeps wide ones', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'cluster_size=4k');
  await io(made, 'write -P 1 0 64k');
  for (const folder of [made.mine, made.theirs])
    await qemuImg(folder, 'snapshot', '-c', 'a', 'disk');
  assert.equal(await runBoth(made, ['amend', '-o', 'refcount_bits=1', 'disk']), 1);
  assert.equal(await runBoth(made, ['amend', '-o', 'refcount_bits=2', 'disk']), 0);
  await assertTwins(made, [disk], 'two bits');
});

test('features that version 2 has not are a reason to stay', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const options of ['data_file=data', 'extended_l2=on', 'refcount_bits=8']) {
    const made = await makeDisk(t, options);
    await io(made, 'write -P 1 0 64k');
    assert.equal(await runBoth(made, ['amend', '-o', 'compat=0.10', 'disk']), 1, options);
    await assertTwins(made, [disk], options);
  }
  const packed = await makeDisk(t, 'compression_type=zstd');
  await io(packed, 'write -c -P 1 0 64k');
  assert.equal(await runBoth(packed, ['amend', '-o', 'compat=0.10', 'disk']), 1);
  const resized = await makeDisk(t, 'compat=1.1');
  for (const folder of [resized.mine, resized.theirs]) {
    await qemuImg(folder, 'snapshot', '-c', 'a', 'disk');
    await qemuImg(folder, 'resize', 'disk', '9M');
  }
  assert.equal(await runBoth(resized, ['amend', '-o', 'compat=0.10', 'disk']), 1);
  assert.equal(await runBoth(resized, ['amend', '-o', 'compat=0.10,size=7M', 'disk']), 1);
  assert.equal(await runBoth(resized, ['amend', '-o', 'compat=0.10,size=8M', 'disk']), 0);
  await assertTwins(resized, [disk], 'resized');
});

test('a data file gets another name, and need not be readable by itself any more', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'data_file=data,data_file_raw=on');
  await io(made, 'write -P 1 0 64k');
  const words = (list: string): string[] => ['amend', '-o', list, 'disk'];
  await runBoth(made, words('data_file_raw=on'));
  await runBoth(made, words('data_file_raw=off'));
  await runBoth(made, words('data_file_raw=on'));
  await runBoth(made, words('data_file=other'));
  await runBoth(made, ['info', '-f', 'qcow2', 'disk']);
  const opts = 'driver=qcow2,file.filename=disk,data-file.driver=file,data-file.filename=data';
  await runBoth(made, ['amend', '--image-opts', '-o', 'data_file=', opts]);
  await runBoth(made, ['amend', '--image-opts', '-o', 'data_file=data', opts]);
  await assertTwins(made, [disk], 'data file');
});

test('how far it is is told as qemu-img tells it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'cluster_size=4k,compat=0.10');
  for (const list of [
    'refcount_bits=64,compat=1.1',
    'refcount_bits=16',
    'compat=0.10',
    'size=9M',
  ]) {
    await runBoth(made, ['amend', '-p', '-o', list, 'disk']);
  }
});

test('what an image was left with is put right, and told, before it is amended', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'lazy_refcounts=on');
  for (const cwd of [made.mine, made.theirs]) {
    const words = ['-f', 'qcow2', '-c', 'write 0 128k', '-c', 'flush', '-c', 'abort', 'disk'];
    await run('qemu-io', words, { cwd });
  }
  assert.equal(await runBoth(made, ['amend', '-o', 'compat=0.10', 'disk']), 0);
  await assertTwins(made, [disk], 'dirty');
});

test('a cluster of zeroes that a snapshot has as data keeps them', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const backing of [false, true]) {
    const { mine } = await makeDisk(t, 'compat=1.1', { backing });
    await qemuIo(mine, 'qcow2', 'disk', 'write -P 5 0 256k');
    await qemuImg(mine, 'snapshot', '-c', 'then', 'disk');
    // Unlike clusters that are given up, these stay where they are, marked.
    await qemuIo(mine, 'qcow2', 'disk', 'write -z 0 128k');
    const { code, stderr } = await runCowherd(['amend', '-o', 'compat=0.10', 'disk'], mine);
    assert.deepEqual([code, stderr], [0, '']);
    await qemuImg(mine, 'check', '-q', 'disk');
    await qemuIo(mine, 'qcow2', 'disk', 'read -P 0 0 128k', 'read -P 5 128k 128k');
    await qemuImg(mine, 'snapshot', '-a', 'then', 'disk');
    await qemuIo(mine, 'qcow2', 'disk', 'read -P 5 0 256k');
  }
});

test('an image with bitmaps does not lose them unasked', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const { mine } = await makeDisk(t, 'compat=1.1');
  await qemuImg(mine, 'bitmap', '--add', 'disk', 'changes');
  const { code, stderr } = await runCowherd(['amend', '-o', 'compat=0.10', 'disk'], mine);
  assert.deepEqual(
    [code, stderr],
    [1, 'cowherd: Cannot downgrade an image with persistent bitmaps\n'],
  );
});

test('`-o help` lists what can change', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await mkdtemp(path.join(process.env['TMPDIR'] ?? '/tmp', 'amend-'));
  const expected = await runQemuImg(['amend', '-f', 'qcow2', '-o', 'help'], folder);
  const actual = await runCowherd(['amend', '-f', 'qcow2', '-o', 'help'], folder);
  assert.equal(actual.stdout, expected.stdout);
});
