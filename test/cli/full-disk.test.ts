/** Making images where there is no room for them. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd } from '../support/both-tools.js';
import { smallDisk } from '../support/small-disk.js';
import { needsTool, run, temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;

/** Bytes that neither compress nor repeat. */
function noise(size: number): Buffer {
  const blocks = Array.from({ length: size / 32 }, (_, index) =>
    createHash('sha256').update(String(index)).digest(),
  );
  return Buffer.concat(blocks);
}

const conversions: readonly string[] = [
  '-O raw',
  '-O raw -o preallocation=falloc',
  '-O raw -o preallocation=full',
  '-O qcow2',
  '-O qcow2 -t none',
  '-O qcow2 -t writethrough',
  '-O qcow2 -W -m 16 --queues 2',
  '-O qcow2 -o cluster_size=512',
  '-O qcow2 -o preallocation=falloc',
  '-O qcow2 -o preallocation=full',
  '-O qcow2 -o lazy_refcounts=on,extended_l2=on',
  '-c -O qcow2',
  '-c -O qcow2 -o compression_type=zstd',
  '-O qcow2 -o data_file=DISK/data',
  '-O qcow2 -o data_file=DISK/data,data_file_raw=on,preallocation=full',
];

test('a conversion ends with one line, the target gone and the source unchanged', async (t) => {
  const disk = await smallDisk(t, 4 * mib);
  if (disk === undefined) return;
  const folder = await temporaryFolder(t);
  const content = noise(6 * mib);
  await writeFile(path.join(folder, 'disk.raw'), content);
  const target = path.join(disk, 'out');
  for (const options of conversions) {
    const words = options.replace('DISK', disk).split(' ');
    const { stdout, stderr, code } = await runCowherd(
      ['convert', ...words, 'disk.raw', target],
      folder,
    );
    assert.deepEqual([code, stdout], [1, ''], options);
    assert.match(stderr, /^cowherd: [^\n]*: No space left on device\n$/, options);
    assert.ok(stderr.includes(disk), `${options}: ${stderr}`);
    if (!options.includes('falloc') && !options.includes('full')) {
      assert.match(stderr, /error while writing at byte \d+/, options);
    }
    assert.deepEqual(await readdir(disk), [], options);
  }
  assert.ok((await readFile(path.join(folder, 'disk.raw'))).equals(content));
});

test('an existing target stays, and is sound', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const disk = await smallDisk(t, 4 * mib);
  if (disk === undefined) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), noise(6 * mib));
  const target = path.join(disk, 'out');
  for (const options of ['cluster_size=512', 'cluster_size=64k', 'extended_l2=on']) {
    await runCowherd(['create', '-q', '-f', 'qcow2', '-o', options, target, '6M'], folder);
    const words = ['convert', '-n', '-O', 'qcow2', 'disk.raw', target];
    const { stderr, code } = await runCowherd(words, folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: [^\n]*: No space left on device\n$/);
    const checked = await run('qemu-img', ['check', target]);
    assert.ok([0, 3].includes(checked.code), `${options}: ${checked.stdout}${checked.stderr}`);
    t.diagnostic(`${options}: ${checked.code === 0 ? 'no leak' : 'leaks'}`);
  }
});

test('an image that is preallocated ends with one line and no file', async (t) => {
  const disk = await smallDisk(t, 4 * mib);
  if (disk === undefined) return;
  const target = path.join(disk, 'out');
  for (const [format, options, size] of [
    ['raw', 'preallocation=falloc', '8M'],
    ['raw', 'preallocation=full', '8M'],
    ['qcow2', 'preallocation=falloc', '8M'],
    ['qcow2', 'preallocation=full', '8M'],
    ['qcow2', 'preallocation=metadata,cluster_size=512', '1G'],
    ['qcow2', `preallocation=full,data_file=${disk}/data`, '8M'],
  ] as const) {
    const words = ['create', '-q', '-f', format, '-o', options, target, size];
    const { stdout, stderr, code } = await runCowherd(words, disk);
    const label = words.join(' ');
    assert.deepEqual([code, stdout], [1, ''], label);
    assert.match(stderr, /^cowherd: [^\n]*: No space left on device\n$/, label);
    assert.ok(stderr.startsWith(`cowherd: ${target}: `), label);
    assert.deepEqual(await readdir(disk), [], label);
  }
});
