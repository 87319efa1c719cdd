/** `convert` says what qemu-img says, and makes images with the content that QEMU's have. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { fixture, unpackFixtures } from '../../support/fixtures.js';
import { needsTool, run, runOk } from '../../support/tools.js';

const names = [
  'base.raw',
  'odd.raw',
  'default.qcow2',
  'on-qcow2.qcow2',
  'longer-than-backing.qcow2',
  'compressed-zstd.qcow2',
  'extended-l2.qcow2',
  'snapshots.qcow2',
];

/** Command lines whose target is `out`; what comes before `|` prepares an existing target. */
const lines: readonly string[] = [
  'base.raw out',
  '-O raw default.qcow2 out',
  '-f raw -O qcow2 base.raw out',
  '-fraw -Oqcow2 base.raw out',
  '-q -p -O qcow2 base.raw out',
  '--source-format=raw --output-format=qcow2 base.raw out',
  '-O qcow2 default.qcow2 out',
  '-O qcow2 on-qcow2.qcow2 out',
  '-O raw longer-than-backing.qcow2 out',
  '-O qcow2 -o cluster_size=512 on-qcow2.qcow2 out',
  '-O qcow2 -o cluster_size=2M default.qcow2 out',
  '-O qcow2 -o compat=0.10,cluster_size=4k default.qcow2 out',
  '-O qcow2 -o extended_l2=on,cluster_size=16k extended-l2.qcow2 out',
  '-O qcow2 -o refcount_bits=1 -o cluster_size=512 base.raw out',
  '-O qcow2 -o lazy_refcounts=on base.raw out',
  '-O qcow2 -o preallocation=metadata base.raw out',
  '-O qcow2 -o preallocation=full base.raw out',
  '-O raw -o preallocation=falloc base.raw out',
  '-O qcow2 -o data_file=out.data base.raw out',
  '-O qcow2 -o data_file=out.data,data_file_raw=on base.raw out',
  '-c -O qcow2 default.qcow2 out',
  '-c -O qcow2 -o compression_type=zstd default.qcow2 out',
  '-c -W -m 16 -O qcow2 -o cluster_size=4k compressed-zstd.qcow2 out',
  '-O raw compressed-zstd.qcow2 out',
  '-S 0 base.raw out',
  '-S 64k -O qcow2 base.raw out',
  '-m 1 -O qcow2 base.raw out',
  '-W -O qcow2 base.raw out',
  '-C base.raw out',
  '-U -O qcow2 base.raw out',
  '-t none -T none -O qcow2 base.raw out',
  '-t writethrough -T directsync base.raw out',
  '-r 10M base.raw out',
  '-l first snapshots.qcow2 out',
  '-l 2 -O qcow2 snapshots.qcow2 out',
  '-l snapshot.id=1 snapshots.qcow2 out',
  '-l snapshot.name=first snapshots.qcow2 out',
  'base.raw base.raw out',
  '-O qcow2 base.raw odd.raw default.qcow2 out',
  '-O qcow2 odd.raw base.raw out',
  '-O qcow2 -B base.raw -F raw longer-than-backing.qcow2 out',
  '-O qcow2 -o backing_file=base.raw,backing_fmt=raw longer-than-backing.qcow2 out',
  '--image-opts driver=raw,file.filename=base.raw out',
  '--image-opts file.filename=default.qcow2 out',
  'create -q -f raw out 1M | -n base.raw out',
  'create -q -f raw out 256k | -n --target-is-zero base.raw out',
  'create -q -f qcow2 out 1M | -n -O qcow2 base.raw out',
  'convert -O qcow2 default.qcow2 out | -n -O qcow2 base.raw out',
  'create -q -f raw out 1M | -n --target-image-opts base.raw driver=raw,file.filename=out',
  'create -q -f raw out 2M | -O qcow2 base.raw out',
];

test('the same words, exit codes and content', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  for (const line of lines) {
    await t.test(`cowherd convert ${line}`, async (t) => {
      const [preparation, command] = line.includes(' | ') ? line.split(' | ') : ['', line];
      const theirs = await unpackFixtures(t, names.map(fixture));
      const ours = await unpackFixtures(t, names.map(fixture));
      for (const folder of [theirs, ours]) {
        if (preparation !== '') await runOk('qemu-img', preparation.split(' '), { cwd: folder });
      }
      const words = ['convert', ...command.split(' ')];
      const expected = await runQemuImg(words, theirs);
      assert.deepEqual(await runCowherd(words, ours), expected);
      assert.equal(expected.code, 0);
      await assertAlike(ours, 'out', path.join(theirs, 'out'), theirs);
    });
  }
});

/** Asserts that QEMU finds two images, each opened from its folder, alike, and ours without fault. */
async function assertAlike(
  ourFolder: string,
  ours: string,
  theirs: string,
  theirFolder: string,
): Promise<void> {
  const ourInfo = await qemuInfo(ours, ourFolder);
  const theirInfo = await qemuInfo(theirs, theirFolder);
  for (const key of ['format', 'virtual-size', 'cluster-size', 'format-specific']) {
    assert.deepEqual(ourInfo[key], theirInfo[key], key);
  }
  // A relative name of a data file means one in the working folder, so raw copies are compared.
  const copy = path.join(ourFolder, 'theirs.raw');
  await runOk('qemu-img', ['convert', theirs, copy], { cwd: theirFolder });
  const words = ['compare', '-F', 'raw', ours, copy];
  const compared = await run('qemu-img', words, { cwd: ourFolder });
  assert.equal(compared.stdout, 'Images are identical.\n', compared.stderr);
  if (ourInfo['format'] !== 'qcow2') return;
  const check = await run('qemu-img', ['check', ours], { cwd: ourFolder });
  assert.equal(check.code, 0, check.stdout + check.stderr);
}

async function qemuInfo(file: string, folder: string): Promise<Record<string, unknown>> {
  const text = await runOk('qemu-img', ['info', '--output=json', file], { cwd: folder });
  return JSON.parse(text) as Record<string, unknown>;
}

test('what cannot be read ends the conversion, or becomes zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('compressed-garbage.qcow2')]);
  const failed = await runCowherd(['convert', 'compressed-garbage.qcow2', 'out'], folder);
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, /^cowherd: error while reading at byte 8192: .+\n$/);
  await assert.rejects(readFile(path.join(folder, 'out')), { code: 'ENOENT' });

  const words = ['convert', '--salvage', 'compressed-garbage.qcow2'];
  const salvaged = await runCowherd([...words, 'out'], folder);
  assert.equal(salvaged.code, 0);
  assert.match(salvaged.stderr, /^(?:cowherd: warning: error while reading offset \d+: .+\n)+$/);
  await runQemuImg([...words, 'theirs'], folder);
  await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', 'out', 'theirs'], { cwd: folder });
});

test('the source is not overwritten, and stays as it was', async (t) => {
  const folder = await unpackFixtures(t, [fixture('on-raw.qcow2')]);
  for (const file of ['on-raw.qcow2', 'base.raw']) {
    const before = await readFile(path.join(folder, file));
    const { code, stderr } = await runCowherd(['convert', 'on-raw.qcow2', file], folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: /);
    assert.deepEqual(await readFile(path.join(folder, file)), before);
  }
});

test('what is not done here is refused, not left out', async (t) => {
  const folder = await unpackFixtures(t, [fixture('bitmaps.qcow2')]);
  for (const [words, message] of [
    [
      ['--object', 'iothread,id=one', 'bitmaps.qcow2', 'out'],
      'User-creatable objects (--object) are not supported, but for secret and tls-creds-*',
    ],
    [['--aio', 'native', 'bitmaps.qcow2', 'out'], 'Invalid aio option: native'],
    [
      ['--queues', '0', 'bitmaps.qcow2', 'out'],
      "Invalid number of queues specified: '0'. Must be between 1 and 64.",
    ],
    [['--progress=3', 'bitmaps.qcow2', 'out'], "Invalid progress target: '3'; expected fd:N"],
  ] as const) {
    const { code, stderr } = await runCowherd(['convert', ...words], folder);
    assert.deepEqual([code, stderr], [1, `cowherd: ${message}\n`]);
  }
});

test('several queues copy the same content', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const words = ['convert', '--queues', '4', '--aio', 'threads', '-O', 'qcow2', 'default.qcow2'];
  const { code, stderr } = await runCowherd([...words, 'out'], folder);
  assert.deepEqual([code, stderr], [0, '']);
  await assertAlike(folder, 'out', 'default.qcow2', folder);
});

test('progress is a line that is written over, a hundred percent at the end', async (t) => {
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const { stdout } = await runCowherd(['convert', '-p', 'default.qcow2', 'out'], folder);
  assert.match(stdout, /^ {4}\(0\.00\/100%\)\r( {4}\(\d+\.\d\d\/100%\)\r)*\n$/);
  assert.match(stdout, /\(100\.00\/100%\)\r\n$/);
});

test('a target that exists is replaced as a whole', async (t) => {
  const folder = await unpackFixtures(t, [fixture('odd.raw')]);
  const out = path.join(folder, 'out');
  await writeFile(out, Buffer.alloc(100_000, 1));
  const { code } = await runCowherd(['convert', 'odd.raw', 'out'], folder);
  assert.equal(code, 0);
  const content = Buffer.alloc(1024);
  (await readFile(path.join(folder, 'odd.raw'))).copy(content);
  assert.deepEqual(await readFile(out), content);
});

test('-p counts what is to be copied', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await unpackFixtures(t, [fixture('base.raw')]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', 'a.qcow2', '128M'], { cwd: folder });
  const writes = ['0', '2M', '4M', '32M'].flatMap((at) => ['-c', `write -q ${at} 1M`]);
  await runOk('qemu-io', [...writes, 'a.qcow2'], { cwd: folder });
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', 'empty.qcow2', '128M'], { cwd: folder });
  for (const source of ['a.qcow2', 'empty.qcow2']) {
    const words = ['convert', '-p', '-O', 'qcow2', source, 'out'];
    const expected = await runQemuImg(words, folder);
    assert.deepEqual(await runCowherd(words, folder), expected);
  }
});
