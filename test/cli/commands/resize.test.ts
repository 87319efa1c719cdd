/** `resize` gives disks the size, and says and refuses what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { runCowherd } from '../../support/both-tools.js';
import { smallDisk } from '../../support/small-disk.js';
import { assertTwins, makeTwins, qemuImg, runBoth } from '../../support/twins.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const images: Readonly<Record<string, readonly string[]>> = {
  'version 3': ['-f', 'qcow2'],
  'version 2': ['-f', 'qcow2', '-o', 'compat=0.10'],
  'small clusters': ['-f', 'qcow2', '-o', 'cluster_size=512'],
  'large clusters': ['-f', 'qcow2', '-o', 'cluster_size=2M'],
  subclusters: ['-f', 'qcow2', '-o', 'extended_l2=on'],
  'wide counts': ['-f', 'qcow2', '-o', 'refcount_bits=64'],
  'a data file': ['-f', 'qcow2', '-o', 'data_file=data'],
  'a raw data file': ['-f', 'qcow2', '-o', 'data_file=data,data_file_raw=on'],
  raw: ['-f', 'raw'],
  QED: ['-f', 'qed'],
};
// None cuts a cluster that holds data and makes it whole again: qemu-img then shows what had been cut off.
const sizes = [
  '9M',
  '+1M',
  '8M',
  '+512',
  '+65024',
  '120M',
  '100M',
  '-50M',
  '8M',
  '3M',
  '2M',
  '+0',
  '0',
  '12M',
];

for (const [name, words] of Object.entries(images)) {
  test(`sizes one after the other, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const format = words[1];
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', ...words, 'disk', '8M');
      const io = ['-c', 'write -P 7 1M 3M', '-c', 'write -P 9 7300k 100k', '-c', 'write -z 5M 1M'];
      await runOk('qemu-io', ['-f', format, ...io, 'disk'], { cwd: folder });
    });
    let value = 20;
    for (const size of sizes) {
      const code = await runBoth(made, ['resize', '-f', format, '--shrink', 'disk', size]);
      await assertTwins(made, [{ name: 'disk', format, slackClusters: 4 }], `${name}, ${size}`);
      if (code !== 0) continue;
      const { stdout } = await run('qemu-img', ['info', '--output=json', 'disk'], {
        cwd: made.mine,
      });
      const bytes = (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'];
      value += 1;
      for (const folder of [made.mine, made.theirs]) {
        const io = `write -P ${value} ${Math.max(0, bytes - 70_144)} 1024`;
        if (bytes > 70_144)
          await runOk('qemu-io', ['-f', format, '-c', io, 'disk'], { cwd: folder });
      }
    }
  });
}

test('a data file that is read as it is has the length and the bytes that QEMU gives it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    const options = 'data_file=data,data_file_raw=on,cluster_size=4k';
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', options, 'disk', '4M');
    await runOk('qemu-io', ['-c', 'write -P 7 1M 3M', 'disk'], { cwd: folder });
  });
  for (const words of [
    ['resize', 'disk', '5000192'],
    ['resize', '--shrink', 'disk', '2000384'],
    ['resize', '--preallocation=full', 'disk', '3M'],
    ['amend', '-o', 'size=9M', 'disk'],
    ['amend', '-o', 'size=1000448', 'disk'],
  ]) {
    await runBoth(made, words);
    const images = [{ name: 'disk', format: 'qcow2', slackClusters: 4 }];
    await assertTwins(made, images, words.join(' '));
    await runOk('cmp', [path.join(made.mine, 'data'), path.join(made.theirs, 'data')]);
  }
  // What somebody has appended to it is not lost, but is what the larger disk shows.
  await runBoth(made, ['resize', 'disk', '1M']);
  for (const folder of [made.mine, made.theirs]) {
    const appended = ['-f', 'raw', '-c', 'truncate 2M', '-c', 'write -P 9 1M 1M', 'data'];
    await runOk('qemu-io', appended, { cwd: folder });
  }
  await runBoth(made, ['resize', 'disk', '2M']);
  await runOk('cmp', [path.join(made.mine, 'data'), path.join(made.theirs, 'data')]);
  await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', 'data', 'disk'], {
    cwd: made.mine,
  });
});

test('disks above others, which do not show in what is added', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const options of [
    [],
    ['-o', 'compat=0.10'],
    ['-o', 'extended_l2=on'],
    ['-o', 'cluster_size=4k'],
    ['-o', 'data_file=data'],
  ]) {
    const made = await makeTwins(t, async (folder) => {
      await writeFile(path.join(folder, 'base'), Buffer.alloc(6_000_128, 5));
      const below = ['-b', 'base', '-F', 'raw'];
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...options, ...below, 'disk', '2000384');
      await runOk('qemu-io', ['-c', 'write -P 7 1M 100k', 'disk'], { cwd: folder });
    });
    for (const size of ['3M', '5000192', '2M', '20M', '1000448', '6M']) {
      await runBoth(made, ['resize', '--shrink', 'disk', size]);
      await assertTwins(
        made,
        [{ name: 'disk', format: 'qcow2', slackClusters: 4 }],
        `${options.join(' ')} ${size}`,
      );
    }
  }
});

test('snapshots keep what they have', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const compat of ['1.1', '0.10']) {
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', `compat=${compat}`, 'disk', '64M');
      await runOk('qemu-io', ['-c', 'write -P 7 0 40M', 'disk'], { cwd: folder });
      await qemuImg(folder, 'snapshot', '-c', 'kept', 'disk');
      await runOk('qemu-io', ['-c', 'write -P 8 10M 10M', 'disk'], { cwd: folder });
    });
    for (const size of ['1G', '15M', '30M']) {
      await runBoth(made, ['resize', '--shrink', 'disk', size]);
      await assertTwins(
        made,
        [{ name: 'disk', format: 'qcow2', slackClusters: 4 }],
        `${compat} ${size}`,
      );
    }
    for (const folder of [made.mine, made.theirs]) {
      await qemuImg(folder, 'convert', '-l', 'kept', '-O', 'raw', 'disk', 'kept');
    }
    await runOk('cmp', [path.join(made.mine, 'kept'), path.join(made.theirs, 'kept')]);
  }
});

test('space reserved for what is added to a raw disk', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await makeTwins(t, (folder) =>
    writeFile(path.join(folder, 'disk'), Buffer.alloc(65_536, 3)),
  );
  for (const mode of ['falloc', 'full', 'off']) {
    await runBoth(made, ['resize', '-f', 'raw', `--preallocation=${mode}`, 'disk', '+3M']);
    await assertTwins(made, [{ name: 'disk', format: 'raw' }], mode);
    const [one, other] = await Promise.all(
      [made.mine, made.theirs].map((each) => stat(path.join(each, 'disk'))),
    );
    assert.equal(one.blocks, other.blocks, mode);
  }
});

test('space reserved for what is added to an image', { timeout: 300_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const layouts = [
    'cluster_size=4k',
    'compat=0.10',
    'cluster_size=16k,extended_l2=on',
    'cluster_size=8k,refcount_bits=1',
    'data_file=data',
  ];
  for (const options of layouts) {
    for (const below of [[], ['-b', 'base', '-F', 'raw']]) {
      const made = await makeTwins(t, async (folder) => {
        await writeFile(path.join(folder, 'base'), Buffer.alloc(8 << 20, 9));
        const words = ['create', '-q', '-f', 'qcow2', '-o', options, ...below, 'disk', '1008k'];
        await qemuImg(folder, ...words);
        const io = ['-c', 'write -P 3 998k 10k', '-c', 'write -P 4 0 100k'];
        await runOk('qemu-io', [...io, 'disk'], { cwd: folder });
      });
      let bytes = 1008 << 10;
      for (const mode of ['metadata', 'falloc', 'full', 'metadata']) {
        bytes += 1 << 20;
        const words = ['resize', `--preallocation=${mode}`, 'disk', String(bytes)];
        const code = await runBoth(made, words);
        // What QEMU refuses then has been given its place all the same.
        if (code !== 0) break;
        const what = `${options} ${below.join(' ')} ${mode}`;
        const images = [{ name: 'disk', format: 'qcow2', slackClusters: 8 }];
        await assertTwins(made, images, what);
        const [ours, theirs] = await Promise.all(
          [made.mine, made.theirs].map((folder) =>
            runOk('qemu-img', ['check', '--output=json', 'disk'], { cwd: folder }),
          ),
        );
        const allocated = (text: string): unknown =>
          (JSON.parse(text) as Record<string, unknown>)['allocated-clusters'];
        assert.equal(allocated(ours), allocated(theirs), what);
        for (const folder of [made.mine, made.theirs]) {
          await runOk('qemu-io', ['-c', `write -P 6 ${bytes - 65_536} 64k`, 'disk'], {
            cwd: folder,
          });
        }
      }
    }
  }
});

test('what was given up before does not show in the place of what is added', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk');
  for (const mode of ['metadata', 'falloc', 'full']) {
    await createImage(disk, { format: 'qcow2', size: 1 << 20, clusterSize: 4096 });
    const io = ['-c', 'write -P 6 0 1M', '-c', 'discard 64k 128k', '-c', 'flush'];
    await runOk('qemu-io', [...io, disk]);
    const words = ['resize', '-q', `--preallocation=${mode}`, 'disk', '2M'];
    assert.equal((await runCowherd(words, folder)).code, 0);
    const read = await runOk('qemu-io', ['-c', 'read -P 0 1M 1M', disk]);
    assert.doesNotMatch(read, /verification failed/, mode);
    await runOk('qemu-img', ['check', disk]);
  }
});

test('space that cannot be reserved leaves the size as it was, and nothing in its place', async (t) => {
  const folder = await smallDisk(t, 20 << 20);
  if (folder === undefined || !needsTool(t, 'qemu-img')) return;
  const disk = path.join(folder, 'disk');
  await createImage(disk, { format: 'qcow2', size: 1 << 20, clusterSize: 4096 });
  for (const mode of ['falloc', 'full']) {
    const words = ['resize', `--preallocation=${mode}`, 'disk', '100M'];
    const { code, stderr } = await runCowherd(words, folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: [^\n]*No space left on device\n$/);
    assert.equal((await run('qemu-img', ['check', disk])).code, 0, mode);
  }
  await using image = await openImage(disk);
  assert.equal(image.size, 1 << 20);
  const signal = AbortSignal.abort();
  await assert.rejects(image.resize('3M', { preallocation: 'full', signal }), {
    name: 'AbortError',
  });
  await image.resize('3M', { preallocation: 'full' });
  await image.close();
  const stdout = await runOk('qemu-img', ['check', '--output=json', disk]);
  assert.match(stdout, /"allocated-clusters": 512/);
});

test('an encrypted disk that grows into its place reads as zeroes there', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk');
  const encrypt = { format: 'luks', secret: 'one', iterTime: 10 } as const;
  await createImage(disk, { format: 'qcow2', size: 1 << 20, encrypt });
  const image = await openImage(disk, { encrypt: { secret: 'one' } });
  for (const preallocation of ['metadata', 'falloc', 'full'] as const) {
    await image.resize(image.size + (1 << 20), { preallocation });
  }
  await image.close();
  const secret = ['--object', 'secret,id=key,data=one'];
  const name = ['--image-opts', `driver=qcow2,file.filename=${disk},encrypt.key-secret=key`];
  const io = await runOk('qemu-io', [...secret, '-c', 'read -P 0 0 4M', ...name]);
  assert.doesNotMatch(io, /verification failed/);
  await runOk('qemu-img', ['check', ...secret, ...name]);
});

test('what is refused, and how', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'disk', '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'vdi', 'disk.vdi', '8M');
    const old = ['-o', 'compat=0.10', '-b', 'disk', '-F', 'qcow2', 'old', '4M'];
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...old);
    await qemuImg(folder, 'snapshot', '-c', 'kept', 'old');
  });
  for (const words of [
    ['disk', '4M'],
    ['disk', '-4M'],
    ['disk', '-100M'],
    ['disk', '0'],
    ['disk', 'x'],
    ['disk', '1000'],
    ['--preallocation=full', 'disk', '8M'],
    ['--preallocation=odd', 'disk', '9M'],
    ['none', '9M'],
    ['disk.vdi', '9M'],
    // Above a longer image, and with a snapshot: the first of two reasons.
    ['old', '5M'],
    ['disk', '16E'],
    ['-q', 'disk', '9M'],
  ]) {
    await runBoth(made, ['resize', ...words]);
  }
  const { code, stderr } = await runCowherd(['resize', 'disk'], made.mine);
  assert.equal(code, 1);
  assert.match(stderr, /Not enough arguments/);
});

test('a disk that is full leaves the size as it was', async (t) => {
  const folder = await smallDisk(t, 20 << 20);
  if (folder === undefined || !needsTool(t, 'qemu-img')) return;
  await writeFile(path.join(folder, 'raw'), Buffer.alloc(1 << 20, 1));
  for (const mode of ['falloc', 'full']) {
    const words = ['resize', '-f', 'raw', `--preallocation=${mode}`, 'raw', '100M'];
    const { code, stderr } = await runCowherd(words, folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: [^\n]*No space left on device\n$/);
    assert.equal((await stat(path.join(folder, 'raw'))).size, 1 << 20, mode);
  }
});
