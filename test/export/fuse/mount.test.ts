/** The disk of an image as a file: what programs read and write there, and how it ends. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Running, startServer } from '../../support/running-server.js';
import {
  cowherdProgram,
  findTool,
  needsTool,
  run,
  runOk,
  temporaryFolder,
} from '../../support/tools.js';

const mebi = 1024 * 1024;

/** Whether the kernel has FUSE, and we may mount (root of a container may not), or somebody helps us. */
async function canMount(t: TestContext): Promise<boolean> {
  const mayMount = (await run('unshare', ['-m', 'true']).catch(() => undefined))?.code === 0;
  const isHelped = findTool('fusermount3') !== undefined;
  if (existsSync('/dev/fuse') && (mayMount || isHelped)) return true;
  t.skip('needs /dev/fuse, and the right to mount or fusermount3');
  return false;
}

async function mounted(
  t: TestContext,
  folder: string,
  ...words: readonly string[]
): Promise<Running> {
  const running = await startServer(t, folder, words, 'mount');
  t.after(() => run('umount', ['-l', path.join(folder, words.at(-1)!)]));
  return running;
}

async function folderWithImage(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  const disk = Buffer.alloc(16 * mebi);
  for (let at = 0; at < 5 * mebi; at++) disk[at] = (at * 31 + (at >> 9)) & 0xff;
  await writeFile(path.join(folder, 'disk.raw'), disk);
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2'], {
    cwd: folder,
  });
  return folder;
}

test('programs read and write the file, and the image has what they wrote', async (t) => {
  if (!(await canMount(t)) || !needsTool(t, 'qemu-img', 'fio')) return;
  const folder = await folderWithImage(t);
  const options = { cwd: folder };
  const { ended, lines } = await mounted(t, folder, '--workers', '2', 'disk.qcow2', 'file');
  assert.deepEqual(lines, ['Mounted at file']);
  await runOk('cmp', ['disk.raw', 'file'], options);
  const map = await runOk('qemu-img', ['map', '-f', 'raw', '--output=json', 'file'], options);
  const extents = JSON.parse(map) as { start: number; length: number; data: boolean }[];
  assert.deepEqual(
    extents.map(({ start, length, data }) => [start, length, data]),
    [
      [0, 5 * mebi, true],
      [5 * mebi, 11 * mebi, false],
    ],
  );
  for (const file of ['file', 'disk.raw']) {
    const write = ['if=disk.qcow2', `of=${file}`, 'bs=10000', 'count=50', 'seek=321'];
    await runOk('dd', [...write, 'conv=notrunc,fsync', 'status=none'], options);
    await runOk('fallocate', ['-p', '-o', '1000000', '-l', '1234567', file], options);
    await runOk('fallocate', ['-z', '-n', '-o', '3000000', '-l', '500001', file], options);
  }
  await runOk('cmp', ['disk.raw', 'file'], options);
  const load = ['--rw=randrw', '--bsrange=512-65536', '--ioengine=psync', '--verify=crc32c'];
  await runOk('fio', ['--name=v', '--filename=file', '--size=4m', '--offset=8m', ...load], options);
  await runOk(
    'fio',
    ['--name=v', '--filename=file', '--size=2m', '--offset=13m', ...load, '--direct=1'],
    options,
  );
  await runOk('cp', ['file', 'copy.raw'], options);
  const grown = await run('truncate', ['-s', '20M', 'file'], options);
  assert.match(grown.stderr, /Operation not permitted/, 'a disk stays as large as it is');
  const beyond = await run(
    'dd',
    ['if=/dev/zero', 'of=file', 'bs=1M', 'seek=16', 'count=1', 'conv=notrunc'],
    options,
  );
  assert.match(beyond.stderr, /No space left on device/);
  await runOk('umount', ['file'], options);
  assert.equal(await ended, 0);
  assert.ok(!existsSync(path.join(folder, 'file')), 'what was made for it is gone');
  await runOk('qemu-img', ['check', 'disk.qcow2'], options);
  await runOk(
    'qemu-img',
    ['compare', '-f', 'raw', '-F', 'qcow2', 'copy.raw', 'disk.qcow2'],
    options,
  );
});

test('a signal ends it, whoever has the file open, and what was there before stays', async (t) => {
  if (!(await canMount(t)) || !needsTool(t, 'qemu-img')) return;
  const folder = await folderWithImage(t);
  await writeFile(path.join(folder, 'file'), 'as before');
  const { child, ended } = await mounted(t, folder, 'disk.qcow2', 'file');
  const reader = spawn('sh', ['-c', 'exec 3<file; echo open; read line; head -c 1 <&3'], {
    cwd: folder,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  await once(reader.stdout, 'data');
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
  reader.stdin.end('\n');
  const [code] = (await once(reader, 'close')) as [number];
  assert.equal(code, 1, 'who goes on reading is told');
  assert.equal(await readFile(path.join(folder, 'file'), 'utf8'), 'as before');
  await runOk('qemu-img', ['check', 'disk.qcow2'], { cwd: folder });
});

test('an image that is only read is a file that is only read', async (t) => {
  if (!(await canMount(t)) || !needsTool(t, 'qemu-img')) return;
  const folder = await folderWithImage(t);
  const { child, ended } = await mounted(t, folder, '-r', 'disk.qcow2', 'file');
  const write = ['if=/dev/zero', 'of=file', 'bs=512', 'count=1', 'conv=notrunc'];
  const { code, stderr } = await run('dd', write, { cwd: folder });
  assert.notEqual(code, 0);
  assert.match(stderr, /Read-only file system|Permission denied/);
  await runOk('cmp', ['disk.raw', 'file'], { cwd: folder });
  child.kill('SIGINT');
  assert.equal(await ended, 0);
});

test('the file may lie upon the image itself', async (t) => {
  if (!(await canMount(t)) || !needsTool(t, 'qemu-img')) return;
  const folder = await folderWithImage(t);
  const { ended } = await mounted(t, folder, 'disk.qcow2', 'disk.qcow2');
  await runOk('cmp', ['disk.raw', 'disk.qcow2'], { cwd: folder });
  await runOk('umount', ['disk.qcow2'], { cwd: folder });
  assert.equal(await ended, 0);
  await runOk('qemu-img', ['check', '-f', 'qcow2', 'disk.qcow2'], { cwd: folder });
});

test('what no file can be mounted on is refused in one line', async (t) => {
  if (!(await canMount(t)) || !needsTool(t, 'qemu-img')) return;
  const folder = await folderWithImage(t);
  await mkdir(path.join(folder, 'folder'));
  await symlink('nowhere', path.join(folder, 'link'));
  for (const [words, why] of [
    [['disk.qcow2', 'folder'], "Could not mount 'folder': what is there is no file"],
    [['disk.qcow2', 'link'], "Could not mount 'link': what is there is no file"],
    [['disk.qcow2', 'no/file'], "Could not mount 'no/file': No such file or directory"],
    [['disk.qcow2', ''], "Invalid address '': the path of a file is expected"],
    [['disk.qcow2'], 'Expecting an image and a file'],
    [['absent.qcow2', 'file'], "Could not open 'absent.qcow2'"],
  ] as const) {
    const { code, stderr } = await run(process.execPath, [cowherdProgram, 'mount', ...words], {
      cwd: folder,
    });
    assert.equal(code, 1, words.join(' '));
    assert.ok(stderr.includes(why), stderr);
    assert.ok(!existsSync(path.join(folder, 'file')));
  }
});
