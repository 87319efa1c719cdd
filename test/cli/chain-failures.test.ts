/** Commits and rebases that cannot go on: files in use, disks that are full, users who interrupt. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rename, stat } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openImage } from '../../src/image/graph/open.js';
import { runCowherd } from '../support/both-tools.js';
import { fill, smallDisk } from '../support/small-disk.js';
import { cowherdProgram, needsTool, run, temporaryFolder } from '../support/tools.js';
import { qemuImg, qemuIo } from '../support/twins.js';

const mib = 1024 * 1024;

/** Makes two images of so many MiB below one that stands on the first. */
async function makeChain(folder: string, size: number, baseFormat = 'raw'): Promise<void> {
  for (const name of ['base', 'other']) {
    await qemuImg(folder, 'create', '-q', '-f', baseFormat, name, `${size}M`);
  }
  await qemuIo(folder, baseFormat, 'base', `write -P 1 0 ${size}M`);
  const below = ['-b', 'base', '-F', baseFormat];
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...below, 'top');
  await qemuIo(folder, 'qcow2', 'top', `write -P 2 1M ${size / 2}M`);
}

/** What `top` shows, told by its digest. */
async function contentOf(folder: string): Promise<string> {
  await qemuImg(folder, 'convert', '-U', '-f', 'qcow2', '-O', 'raw', 'top', 'seen');
  return (await run('sha256sum', ['seen'], { cwd: folder })).stdout;
}

async function assertWhole(folder: string, content: string): Promise<void> {
  assert.equal(await contentOf(folder), content);
  const { code, stdout } = await run('qemu-img', ['check', 'top'], { cwd: folder });
  assert.ok(code === 0 || code === 3, stdout);
}

test('files that others use', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  await makeChain(folder, 4, 'qcow2');
  const content = await contentOf(folder);
  for (const [name, readOnly, words] of [
    ['base', true, ['commit', 'top']],
    ['base', false, ['commit', 'top']],
    ['top', true, ['commit', 'top']],
    ['top', false, ['rebase', '-b', 'other', '-F', 'qcow2', 'top']],
    ['other', false, ['rebase', '-b', 'other', '-F', 'qcow2', 'top']],
  ] as const) {
    await using user = await openImage(path.join(folder, name), { readOnly, backing: 'ignore' });
    const { code, stdout, stderr } = await runCowherd(words, folder);
    assert.deepEqual([code, stdout], [1, ''], user.filename);
    assert.match(stderr, new RegExp(`^cowherd: [^\\n]* lock\\n[^\\n]*\\[${name}\\]\\?\\n$`));
  }
  await assertWhole(folder, content);
  await using user = await openImage(path.join(folder, 'other'), { readOnly: true });
  const words = ['rebase', '-b', 'other', '-F', 'qcow2', 'top'];
  const { code, stderr } = await runCowherd(words, folder);
  assert.deepEqual([code, stderr], [0, ''], user.filename);
  await assertWhole(folder, content);
});

test('a base that may not be written', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io', 'chattr')) return;
  const folder = await temporaryFolder(t);
  await makeChain(folder, 4);
  const content = await contentOf(folder);
  // What only reads is so for root too.
  const { code: marked } = await run('chattr', ['+i', 'base'], { cwd: folder });
  if (marked !== 0) {
    t.skip('needs a file system with files that cannot be changed, and permission');
    return;
  }
  try {
    const { code, stderr } = await runCowherd(['commit', 'top'], folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: [^\n]*'base': Operation not permitted\n$/);
    await assertWhole(folder, content);
  } finally {
    await run('chattr', ['-i', 'base'], { cwd: folder });
  }
});

test('no room below, and none above', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const disk = await smallDisk(t, 6 * mib);
  if (disk === undefined) return;
  for (const [small, words] of [
    ['base', ['commit', 'top']],
    ['top', ['rebase', '-b', 'other', '-F', 'qcow2', 'top']],
  ] as const) {
    const folder = await temporaryFolder(t);
    await makeChain(folder, 8, 'qcow2');
    // Small enough to lie there, until it grows.
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'base', '8M');
    if (small === 'top') await qemuIo(folder, 'qcow2', 'base', 'write -P 1 0 8M');
    await move(folder, small, disk);
    const content = await contentOf(folder);
    const filler = await fill(disk, (small === 'base' ? 3 : 1) * mib);
    const { code, stdout, stderr } = await runCowherd(words, folder);
    assert.deepEqual([code, stdout], [1, ''], small);
    assert.match(stderr, /^cowherd: [^\n]*No space left on device\n$/);
    await assertWhole(folder, content);
    await run('rm', [filler, path.join(disk, small)]);
  }
});

/** Moves a file to another folder, with a link in its place. */
async function move(folder: string, name: string, to: string): Promise<void> {
  await run('mv', [path.join(folder, name), to]);
  await run('ln', ['-s', path.join(to, name), path.join(folder, name)]);
}

/** Starts the program, and interrupts it once it is at work. */
async function interrupted(
  folder: string,
  words: readonly string[],
): Promise<{ readonly code: number | null; readonly stderr: string }> {
  const child = spawn(process.execPath, [cowherdProgram, ...words, '--progress=fd:3', 'top'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'close');
  await Promise.race([once(child.stdio[3]!, 'data'), ended]);
  child.kill('SIGINT');
  const [code] = (await ended) as [number | null];
  return { code, stderr };
}

async function interruption(t: TestContext, words: readonly string[]): Promise<void> {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  await makeChain(folder, 256);
  const content = await contentOf(folder);
  const { code, stderr } = await interrupted(folder, words);
  assert.equal(code, 130, stderr);
  assert.match(stderr, /^cowherd: (?:Committing|Rebasing) 'top' was cancelled\n$/);
  await assertWhole(folder, content);
  const again = await runCowherd(
    [...words.filter((word) => word !== '-r' && word !== '1M'), 'top'],
    folder,
  );
  assert.deepEqual([again.code, again.stderr], [0, '']);
  await assertWhole(folder, content);
}

test('a commit that is interrupted', (t) => interruption(t, ['commit', '-r', '1M']));

test('a rebase that is interrupted', (t) =>
  interruption(t, ['rebase', '-b', 'other', '-F', 'raw']));

test('a commit that is killed can be done again', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  await makeChain(folder, 64);
  const content = await contentOf(folder);
  for (const wait of [0, 20, 60, 120, 200]) {
    const child = spawn(process.execPath, [cowherdProgram, 'commit', 'top'], { cwd: folder });
    const ended = once(child, 'close');
    await sleep(60 + wait);
    child.kill('SIGKILL');
    await ended;
    await assertWhole(folder, content);
  }
  const { code } = await runCowherd(['commit', '-q', 'top'], folder);
  assert.equal(code, 0);
  await assertWhole(folder, content);
});

test('a rate is kept', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  await makeChain(folder, 8);
  const begin = performance.now();
  await runCowherd(['commit', '-q', '-d', '-r', '8M', 'top'], folder);
  const seconds = (performance.now() - begin) / 1000;
  // 4 MiB, of which the first needs no wait.
  assert.ok(seconds > 0.3 && seconds < 5, `${seconds} s`);
  await rename(path.join(folder, 'top'), path.join(folder, 'kept'));
  assert.ok((await stat(path.join(folder, 'kept'))).size > 4 * mib);
});
