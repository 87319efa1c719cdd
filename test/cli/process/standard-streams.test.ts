/** Pipes and files as standard input and output: zeroes take no room, and what cannot be kept is told. */
import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { addon } from '../../../src/native/addon.js';
import { smallDisk } from '../../support/small-disk.js';
import { needsTool, cowherdForShells, run, runOk, temporaryFolder } from '../../support/tools.js';

const mib = 1024 * 1024;

const shell = (text: string, cwd: string, temporary = cwd) =>
  run('sh', ['-c', text.replaceAll('COWHERD', `TMPDIR='${temporary}' ${cowherdForShells}`)], {
    cwd,
  });

/** A disk of data, short and long holes, and a hole at its end. */
async function makeDisk(file: string): Promise<Buffer> {
  const disk = Buffer.alloc(48 * mib);
  for (const [start, length] of [
    [4096, 512],
    [70_000, 3],
    [mib - 1, 2],
    [20 * mib, mib + 4096],
    [40 * mib + 4096, 8192],
  ]) {
    disk.fill(start % 251 || 1, start, start + length);
  }
  await writeFile(file, disk);
  return disk;
}

const bytesTaken = async (file: string): Promise<number> => (await stat(file)).blocks * 512;

test('a raw pipe is not kept anywhere', async (t) => {
  const folder = await temporaryFolder(t);
  const content = await makeDisk(path.join(folder, 'disk.raw'));
  for (const [words, file] of [
    ['- out', 'out'],
    ['- - >through', 'through'],
    ['-f raw -O qcow2 - out.qcow2; COWHERD convert out.qcow2 read', 'read'],
    ['-O qcow2 -c - c.qcow2; COWHERD convert c.qcow2 read-c', 'read-c'],
  ]) {
    const script = `cat disk.raw | COWHERD convert ${words}`;
    const { code, stderr } = await shell(script, folder, '/nowhere');
    assert.deepEqual([code, stderr], [0, ''], script);
    assert.ok((await readFile(path.join(folder, file))).equals(content), script);
  }
});

test('a stream-optimized image goes into a pipe and comes out of one', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await makeDisk(path.join(folder, 'disk.raw'));
  await shell('COWHERD convert -O qcow2 disk.raw disk.qcow2', folder);
  const options = '-O vmdk -o subformat=streamOptimized';
  for (const script of [
    `COWHERD convert ${options} disk.qcow2 - | cat >out.vmdk`,
    `COWHERD convert ${options} disk.qcow2 - >out.vmdk`,
    `COWHERD convert ${options} disk.raw - | COWHERD convert ${options} - - | cat >out.vmdk`,
  ]) {
    const { code, stderr } = await shell(script, folder, '/nowhere');
    assert.deepEqual([code, stderr], [0, ''], script);
    await runOk('qemu-img', ['compare', '-f', 'vmdk', 'out.vmdk', 'disk.raw'], { cwd: folder });
  }
  const cut = `yes | head -c 3000000 >bad.raw; COWHERD convert --checksum sha256:${'00'.repeat(32)} ${options} bad.raw -`;
  const { code, stdout, stderr } = await shell(cut, folder);
  assert.deepEqual([code, stdout], [1, ''], 'nothing that looks like an image');
  assert.match(stderr, /^cowherd: 'bad.raw' is not what was expected: [^\n]*\n$/);
});

test('an image in a pipe is kept without its zeroes, in a folder that has no room for them', async (t) => {
  const disk = await smallDisk(t, 4 * mib);
  if (disk === undefined) return;
  const folder = await temporaryFolder(t);
  const content = await makeDisk(path.join(folder, 'disk.raw'));
  // Of clusters that are all there, most are zeroes.
  const make = `COWHERD convert -S 0 -O qcow2 disk.raw disk.qcow2`;
  await shell(make, folder);
  const script = 'cat disk.qcow2 | COWHERD convert - out';
  const { code, stderr } = await shell(script, folder, disk);
  assert.deepEqual([code, stderr], [0, '']);
  assert.ok((await readFile(path.join(folder, 'out'))).equals(content));
});

test('a pipe that cannot be kept is told with the place where there is no room', async (t) => {
  const disk = await smallDisk(t, mib);
  if (disk === undefined) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(3 * mib, 1));
  await shell('COWHERD convert -O qcow2 disk.raw disk.qcow2', folder);
  const { code, stderr } = await shell('COWHERD convert - out <disk.qcow2', folder, disk);
  assert.deepEqual([code, stderr], [0, ''], 'a file needs no room');
  const full = await shell('cat disk.qcow2 | COWHERD convert - out2', folder, disk);
  assert.equal(full.code, 1);
  assert.match(
    full.stderr,
    /^cowherd: Could not keep standard input in '[^']+': No space left on device\n$/,
  );
  assert.ok(full.stderr.includes(`'${disk}/`), full.stderr);
  const none = await shell('cat disk.qcow2 | COWHERD convert - out2', folder, '/nowhere');
  assert.deepEqual(
    [none.code, none.stderr],
    [1, "cowherd: Could not keep standard input in '/nowhere': No such file or directory\n"],
  );
  assert.deepEqual((await readdir(folder)).sort(), ['disk.qcow2', 'disk.raw', 'out']);
});

test('zeroes become holes where standard output is a file', async (t) => {
  if (addon === undefined) {
    t.skip('Node alone cannot move the position of a descriptor');
    return;
  }
  const folder = await temporaryFolder(t);
  const content = await makeDisk(path.join(folder, 'disk.raw'));
  const header = Buffer.from('before\n');
  for (const [script, expected, mostBytes] of [
    ['COWHERD convert disk.raw - >out', [content], 2 * mib],
    ['COWHERD convert disk.raw disk.raw - >out', [content, content], 4 * mib],
    // Whoever shares the open file goes on where it ended.
    [
      '{ echo before; COWHERD convert disk.raw -; echo before; } >out',
      [header, content, header],
      2 * mib,
    ],
    [
      '{ COWHERD convert disk.raw -; COWHERD convert disk.raw -; } >out',
      [content, content],
      4 * mib,
    ],
    // A file that is appended to, or holds something where it is written, takes the zeroes.
    ['echo before >out; COWHERD convert disk.raw - >>out', [header, content], Infinity],
    [
      'head -c 60000000 /dev/zero | tr "\\000" x >out; COWHERD convert disk.raw - 1<>out',
      [content],
      Infinity,
    ],
    ['COWHERD convert disk.raw - | cat >out', [content], Infinity],
  ] as const) {
    const { code, stderr } = await shell(`rm -f out; ${script}`, folder);
    assert.deepEqual([code, stderr], [0, ''], script);
    const wanted = Buffer.concat(expected);
    const out = path.join(folder, 'out');
    assert.ok((await readFile(out)).subarray(0, wanted.length).equals(wanted), script);
    if (mostBytes === Infinity) continue;
    assert.equal((await stat(out)).size, wanted.length, script);
    assert.ok((await bytesTaken(out)) < mostBytes, `${script}: ${await bytesTaken(out)} bytes`);
  }
});

test('a large sparse disk comes quickly onto a file, and progress ends with it', async (t) => {
  if (addon === undefined || !needsTool(t, 'sh')) return;
  const folder = await temporaryFolder(t);
  await mkdir(path.join(folder, 'tmp'));
  await writeFile(path.join(folder, 'disk.raw'), 'begin');
  await truncate(path.join(folder, 'disk.raw'), 100 * 1024 * mib);
  const begun = performance.now();
  const { code, stderr } = await shell('COWHERD convert -p disk.raw - >out', folder);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /\(100\.00\/100%\)\r\n$/);
  assert.ok(performance.now() - begun < 10_000);
  assert.equal((await stat(path.join(folder, 'out'))).size, 100 * 1024 * mib);
  assert.ok((await bytesTaken(path.join(folder, 'out'))) < mib);
  // A limit on the length of files ends it as a full disk does.
  const limited = await shell('ulimit -f 2000; COWHERD convert disk.raw - >out', folder);
  assert.deepEqual([limited.code, limited.stderr], [1, 'cowherd: write error: File too large\n']);
});

test('a file on standard input is taken as a pipe would be: unpacked, and from where it was read to', async (t) => {
  if (!needsTool(t, 'gzip', 'zstd')) return;
  const folder = await temporaryFolder(t);
  const content = await makeDisk(path.join(folder, 'disk.raw'));
  await runOk('gzip', ['-k', 'disk.raw'], { cwd: folder });
  await runOk('zstd', ['-qk', 'disk.raw'], { cwd: folder });
  for (const [script, skipped] of [
    ['COWHERD convert -O raw - out <disk.raw.gz', 0],
    ['COWHERD convert -O raw - out <disk.raw.zst', 0],
    ['COWHERD convert -O raw - out <disk.raw', 0],
    ['{ dd bs=1M count=3 of=/dev/null status=none; COWHERD convert -O raw - out; } <disk.raw', 3],
  ] as const) {
    if (skipped > 0 && addon === undefined) continue;
    const { code, stderr } = await shell(script, folder);
    assert.deepEqual([code, stderr], [0, ''], script);
    const read = await readFile(path.join(folder, 'out'));
    assert.ok(read.equals(content.subarray(skipped * mib)), script);
  }
});

test('a checksum that no digest can be is refused before anything is read', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'kept'), 'precious');
  const words = 'COWHERD convert --checksum sha256:11 -O raw /dev/zero kept';
  const { code, stderr } = await shell(words, folder);
  assert.equal(code, 1);
  assert.match(stderr, /^cowherd: Invalid checksum 'sha256:11': sha256 has 64 digits\n$/);
  assert.equal(await readFile(path.join(folder, 'kept'), 'utf8'), 'precious');
});
