/** The executable as a process: pipes, signals, descriptors, exit codes. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, readdir, truncate, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fixture, unpackFixtures } from '../support/fixtures.js';
import { cowherdProgram, run, runBytes, temporaryFolder } from '../support/tools.js';

const cowherd = (words: readonly string[], cwd: string, input?: Uint8Array) =>
  runBytes(process.execPath, [cowherdProgram, ...words], {
    cwd,
    ...(input !== undefined && { input }),
  });

test('the exit code is that of the command', async (t) => {
  const folder = await unpackFixtures(t, [fixture('leak.qcow2')]);
  const { code, stdout } = await run(process.execPath, [cowherdProgram, 'check', 'leak.qcow2'], {
    cwd: folder,
  });
  assert.equal(code, 3);
  assert.match(stdout, /2 leaked clusters were found on the image\./);
});

test('standard input is a raw source, standard output a raw target', async (t) => {
  const folder = await unpackFixtures(t, [fixture('base.raw')]);
  const content = await readFile(path.join(folder, 'base.raw'));
  const made = await cowherd(['convert', '-O', 'qcow2', '-', 'out.qcow2'], folder, content);
  assert.deepEqual([made.code, made.stderr], [0, '']);
  const read = await cowherd(['convert', 'out.qcow2', '-'], folder);
  assert.deepEqual([read.code, read.stderr], [0, '']);
  assert.ok(read.stdout.equals(content));
  const through = await cowherd(['convert', '-p', '-', '-'], folder, content);
  assert.ok(through.stdout.equals(content));
});

test('a qcow2 image comes through a pipe as one, unless it is said to be raw', async (t) => {
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const content = await readFile(path.join(folder, 'default.qcow2'));
  await cowherd(['convert', 'default.qcow2', 'expected.raw'], folder);
  const expected = await readFile(path.join(folder, 'expected.raw'));
  for (const [format, wanted] of [
    [[], expected],
    [['-f', 'qcow2'], expected],
    [['-f', 'raw'], content],
  ] as const) {
    const { code, stderr } = await cowherd(['convert', ...format, '-', 'out'], folder, content);
    assert.deepEqual([code, stderr], [0, '']);
    assert.ok((await readFile(path.join(folder, 'out'))).subarray(0, wanted.length).equals(wanted));
  }
});

test('standard output takes nothing but a new raw image', async (t) => {
  const folder = await unpackFixtures(t, [fixture('base.raw')]);
  for (const words of [['-O', 'qcow2'], ['-n'], ['-o', 'preallocation=off'], ['-O', 'vmdk']]) {
    const { code, stderr } = await cowherd(['convert', ...words, 'base.raw', '-'], folder);
    assert.equal(code, 1);
    assert.equal(
      stderr,
      'cowherd: Standard output can only be written as a new raw or stream-optimized image\n',
    );
  }
});

test('a reader that goes away ends the program quietly', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), '');
  await truncate(path.join(folder, 'disk.raw'), 64 * 1024 * 1024);
  const child = spawn(process.execPath, [cowherdProgram, 'convert', 'disk.raw', '-'], {
    cwd: folder,
  });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdout.once('data', () => child.stdout.destroy());
  const [code] = (await once(child, 'close')) as [number];
  assert.deepEqual([code, stderr], [141, '']);
});

test('progress goes as JSON lines to a descriptor of the caller', async (t) => {
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const words = ['convert', '--progress=fd:3', 'default.qcow2', 'out'];
  const child = spawn(process.execPath, [cowherdProgram, ...words], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  let lines = '';
  child.stdio[3]!.on('data', (chunk: Buffer) => (lines += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 0);
  const last: unknown = JSON.parse(lines.trim().split('\n').at(-1) ?? '');
  // What the source stores; the rest of the disk is not copied.
  assert.deepEqual(last, { doneBytes: 114688, totalBytes: 114688 });
});

for (const [how, signals] of [
  ['an interrupted conversion', ['SIGINT']],
  // timeout(1) signals the process and then its group.
  ['one that hears of it several times', ['SIGINT', 'SIGTERM', 'SIGHUP']],
] as const) {
  test(`${how} exits with the code of one signal and leaves no target behind`, async (t) => {
    const folder = await temporaryFolder(t);
    const source = path.join(folder, 'disk.raw');
    await writeFile(source, Buffer.alloc(16 * 1024 * 1024, 1));
    // The rate keeps it busy for seconds, whatever the machine.
    const words = ['convert', '-r', '4M', '-O', 'qcow2', 'disk.raw', 'out.qcow2'];
    const child = spawn(process.execPath, [cowherdProgram, ...words], { cwd: folder });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    while (!(await readdir(folder)).includes('out.qcow2')) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (const signal of signals) child.kill(signal);
    const [code] = (await once(child, 'close')) as [number];
    // Each may be delivered to another thread, so any of them may be heard of first.
    const codes = signals.map((signal) => 128 + constants.signals[signal]);
    assert.ok(codes.includes(code), `exit code ${code}`);
    assert.equal(stderr, "cowherd: Conversion to 'out.qcow2' was cancelled\n");
    assert.deepEqual(await readdir(folder), ['disk.raw']);
    assert.ok((await readFile(source)).every((byte) => byte === 1));
  });
}
