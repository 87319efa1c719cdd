/** `create` says what qemu-img says, and makes images that QEMU finds like its own. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { fixture, unpackFixtures } from '../../support/fixtures.js';
import { loopDevice } from '../../support/loop-device.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

/** Command lines that make an image, or fail to. Base is a raw image, and x.* is what is made. */
const lines: readonly string[] = [
  'x.raw 1M',
  '-f raw x.raw 1.5k',
  '-f raw x.raw 1000',
  '-f raw x.raw 0x1000',
  '-f raw -o preallocation=falloc x.raw 1M',
  '-f raw -o preallocation=full x.raw 1M',
  '-f raw -o preallocation=metadata x.raw 1M',
  '-f raw -o preallocation=nonsense x.raw 1M',
  '-f raw -o cluster_size=4k x.raw 1M',
  '-f raw -o size=1M x.raw',
  '-f raw -b base.raw -F raw x.raw 1M',
  '-f raw -o nocow=on x.raw 1M',
  '-f qcow2 x.qcow2 1M',
  '-fqcow2 -ocluster_size=4k,compat=0.10 x.qcow2 1M',
  'x.qcow2 1M -f qcow2',
  '-qf qcow2 x.qcow2 1M',
  '--format=qcow2 --quiet x.qcow2 1M',
  '-f qcow2 x.qcow2 1000',
  '-f qcow2 x.qcow2 0',
  '-f qcow2 x.qcow2 1T',
  '-f qcow2 x.qcow2',
  '-f qcow2 x.qcow2 1M more',
  '-f qcow2 x.qcow2 -- -1',
  '-f qcow2 x.qcow2 nonsense',
  '-f qcow2 x.qcow2 1Q',
  '-f qcow2 x.qcow2 8E',
  '-f nonsense x.qcow2 1M',
  '-f qcow2 -o nonsense=1 x.qcow2 1M',
  '-f qcow2 -o nonsense x.qcow2 1M',
  ...['512', '4k', '2M', '0x1000', '3k', '4M', '256', 'nonsense'].map(
    (size) => `-f qcow2 -o cluster_size=${size} x.qcow2 1M`,
  ),
  ...['0.10', '1.1', 'v2', 'v3', '0.11', ''].map(
    (compat) => `-f qcow2 -o compat=${compat} x.qcow2 1M`,
  ),
  ...['1', '8', '0x10', '64', '3', '128', '-8', 'nonsense', ''].map(
    (bits) => `-f qcow2 -o refcount_bits=${bits} x.qcow2 1M`,
  ),
  ...['on', 'yes', 'n', 'maybe'].map((value) => `-f qcow2 -o lazy_refcounts=${value} x.qcow2 1M`),
  '-f qcow2 -o lazy_refcounts x.qcow2 1M',
  '-f qcow2 -o nolazy_refcounts x.qcow2 1M',
  '-f qcow2 -o compat=0.10,lazy_refcounts=on x.qcow2 1M',
  '-f qcow2 -o compat=0.10,refcount_bits=8 x.qcow2 1M',
  '-f qcow2 -o compat=0.10,extended_l2=on x.qcow2 1M',
  '-f qcow2 -o compat=0.10,compression_type=zstd x.qcow2 1M',
  '-f qcow2 -o compat=0.10,data_file=x.data x.qcow2 1M',
  '-f qcow2 -o extended_l2=on x.qcow2 1M',
  '-f qcow2 -o extended_l2=on,cluster_size=8k x.qcow2 1M',
  '-f qcow2 -o compression_type=zstd x.qcow2 1M',
  '-f qcow2 -o compression_type=nonsense x.qcow2 1M',
  ...['off', 'metadata', 'falloc', 'full', 'nonsense'].map(
    (mode) => `-f qcow2 -o preallocation=${mode} x.qcow2 1M`,
  ),
  '-f qcow2 -o size=2M x.qcow2',
  '-f qcow2 -o size=2M x.qcow2 1M',
  '-f qcow2 -o data_file=x.data x.qcow2 1M',
  '-f qcow2 -o data_file=x.data,data_file_raw=on x.qcow2 1M',
  '-f qcow2 -o data_file_raw=on x.qcow2 1M',
  '-f qcow2 -o data_file=x,,y.data x.qcow2 1M',
  '-f qcow2 -b base.raw x.qcow2',
  '-f qcow2 -b base.raw -u x.qcow2 1M',
  '-f qcow2 -b base.raw -F raw x.qcow2',
  '-f qcow2 -b base.raw -F raw x.qcow2 1M',
  '-f qcow2 -b base.raw -F raw x.qcow2 1k',
  '-f qcow2 -b base.raw -F nonsense x.qcow2',
  '-f qcow2 -b nowhere.raw -F raw x.qcow2',
  '-f qcow2 -b nowhere.raw -F raw x.qcow2 1M',
  '-f qcow2 -b nowhere.raw -F raw -u x.qcow2 1M',
  '-f qcow2 -b nowhere.raw -F raw -u x.qcow2',
  '-f qcow2 -o backing_file=base.raw,backing_fmt=raw x.qcow2',
  '-f qcow2 -o backing_file= x.qcow2 1M',
  '-f qcow2 -F raw x.qcow2 1M',
  '-f qcow2 -b base.raw -F raw -o data_file=x.data,data_file_raw=on x.qcow2',
  '-f qcow2 -b base.raw -F raw -o preallocation=metadata x.qcow2',
  '-f qcow2 -b base.raw -F raw -o preallocation=metadata,extended_l2=on x.qcow2',
  '-f qcow2 -b x.qcow2 -F qcow2 x.qcow2',
  '-f qcow2 -b ../base.raw -F raw folder/x.qcow2',
  '-f qcow2 nowhere/x.qcow2 1M',
  '-f qcow2 -o cluster_size=4k -o compat=0.10 x.qcow2 1M',
  '-f qcow2 -o cluster_size=4k,cluster_size=8k x.qcow2 1M',
  '-f qcow2 -o cluster_size=4k, x.qcow2 1M',
  '-f qcow2 -o cluster_size=4k,,compat=0.10 x.qcow2 1M',
  '-f qcow2 -o =1 x.qcow2 1M',
  '-f qcow2 -o ,, x.qcow2 1M',
  '-f qcow2 -o ,,lazy_refcounts=on x.qcow2 1M',
  '-f qcow2 -o lazy_refcounts=on,, x.qcow2 1M',
  '-f qcow2 -o cluster_size=4k -o , x.qcow2 1M',
  '-f qcow2 -b nowhere.raw -F nonsense -u x.qcow2 1M',
  '-q -f qcow2 -b nowhere.raw -F nonsense -u x.qcow2 1M',
];

test('the same words, exit codes and images', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  for (const line of lines) {
    await t.test(`cowherd create ${line}`, async (t) => {
      const words = ['create', ...line.split(' ')];
      const [theirs, ours] = [await startingFolder(), await startingFolder()];
      async function startingFolder(): Promise<string> {
        const folder = await unpackFixtures(t, [fixture('base.raw')]);
        await mkdir(path.join(folder, 'folder'));
        return folder;
      }
      const expected = await runQemuImg(words, theirs);
      assert.deepEqual(await runCowherd(words, ours), expected);
      if (expected.code !== 0) return;
      const file = words.find((word) => /(?:^|\/)x\.(?:raw|qcow2)$/.test(word)) ?? '';
      assert.deepEqual(await facts(file, ours), await facts(file, theirs));
      if (line.includes('nowhere')) return;
      const check = await run('qemu-img', ['check', file], { cwd: ours });
      assert.equal(check.code, file.endsWith('.raw') ? 63 : 0, check.stdout + check.stderr);
    });
  }
});

/** What QEMU says about an image, and about a data file, save how large the files are. */
async function facts(file: string, folder: string): Promise<object> {
  const text = await runOk('qemu-img', ['info', '--output=json', file], { cwd: folder });
  const all = JSON.parse(text) as Record<string, unknown>;
  return { ...all, children: undefined, 'actual-size': undefined };
}

test('the options of a format are listed as the real tool lists them', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const line of [
    'create -f qcow2 -o help',
    'create -f qcow2 -o help x.qcow2',
    'create -o help',
    'create -f raw -o ? x.raw 1M',
    'convert -O qcow2 -o help',
    'convert -O raw -o help a b',
  ]) {
    const words = line.split(' ');
    const expected = await runQemuImg(words, folder);
    assert.deepEqual(await runCowherd(words, folder), expected, line);
  }
});

test('a device takes no options of files', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const device = await loopDevice(t, folder, 1 << 20);
  if (device === undefined) return;
  await writeFile(path.join(folder, 'source'), Buffer.alloc(65536, 1));
  for (const options of ['nocow=on', 'extent_size_hint=1M', 'preallocation=falloc']) {
    for (const format of ['qcow2', 'raw']) {
      await assertSame(['create', '-f', format, '-o', options, device, '512k'], folder);
      await assertSame(['convert', '-O', format, '-o', options, 'source', device], folder);
    }
  }
  const { stdout } = await runCowherd(['create', '-f', 'qcow2', '-o', 'help', device], folder);
  assert.ok(!stdout.includes('nocow'));
});
