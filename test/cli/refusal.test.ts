/** What a conversion that cannot succeed leaves alone: sources, and targets that it did not make. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { link, readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { addon } from '../../src/native/addon.js';
import { openImage } from '../../src/image/graph/open.js';
import { runCowherd } from '../support/both-tools.js';
import { cowherdProgram, run, runOk, temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;

/** The digest of every file of a folder. */
async function contents(folder: string): Promise<Readonly<Record<string, string>>> {
  const names = (await readdir(folder, { withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ name }) => name);
  const digests = await Promise.all(
    names.map(async (name) => {
      const content = await readFile(path.join(folder, name));
      return [name, createHash('sha256').update(content).digest('hex')] as const;
    }),
  );
  return Object.fromEntries(digests);
}

/** Converts with a failure, which changes no file. */
async function failsAndLeaves(
  folder: string,
  words: readonly string[],
  message: RegExp,
  env?: Readonly<Record<string, string>>,
): Promise<void> {
  const before = await contents(folder);
  const line = ['convert', ...words];
  const { stdout, stderr, code } =
    env === undefined
      ? await runCowherd(line, folder)
      : await run(process.execPath, [cowherdProgram, ...line], { cwd: folder, env });
  const label = words.join(' ');
  assert.deepEqual([code, stdout], [1, ''], label);
  assert.match(stderr, message, label);
  assert.deepEqual(await contents(folder), before, label);
}

test('what goes wrong before the work is told in one line, and leaves nothing', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(mib, 1));
  await runOk('mkdir', ['folder'], { cwd: folder });
  for (const [words, message] of [
    [['absent', 'out'], /^cowherd: Could not open 'absent': .*No such file or directory\n$/],
    [['-O', 'floppy', 'disk.raw', 'out'], /^cowherd: Unknown file format 'floppy'\n$/],
    [['-O', 'qcow2', '-o', 'colour=red', 'disk.raw', 'out'], /^cowherd: .*colour.*\n$/],
    [
      ['-O', 'qcow2', '-o', 'cluster_size=3', 'disk.raw', 'out'],
      /^cowherd: .*[Cc]luster size.*\n$/,
    ],
    [['disk.raw', 'folder'], /^cowherd: .*folder.*\n$/],
    [['-O', 'qcow2', 'disk.raw', 'folder'], /^cowherd: .*folder.*\n$/],
    [['folder', 'out'], /^cowherd: Could not open 'folder': .*\n$/],
    [
      ['-O', 'qcow2', 'disk.raw', 'nowhere/out'],
      /^cowherd: nowhere\/out: .*No such file or directory\n$/,
    ],
    [['-O', 'qcow2', 'disk.raw', 'disk.raw/out'], /^cowherd: disk.raw\/out: .*Not a directory\n$/],
    [['-O', 'qcow2', 'disk.raw', '/proc/out'], /^cowherd: \/proc\/out: .*\n$/],
    [['-n', '-O', 'qcow2', 'disk.raw', 'absent'], /^cowherd: Could not open 'absent': .*\n$/],
    [['disk.raw'], /^cowherd: Must specify image file name\n$/],
  ] as const) {
    await failsAndLeaves(folder, words, message);
  }
});

/** A disk, an image with it as its data file, an overlay, and a file that stands in the way. */
async function chain(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(mib, 'disk'));
  await writeFile(path.join(folder, 'precious'), 'not to be overwritten');
  for (const words of [
    ['create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'],
    ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2'],
    ['create', '-q', '-f', 'qcow2', '-o', 'data_file=data,data_file_raw=on', 'outer.qcow2', '1M'],
  ]) {
    await runOk(process.execPath, [cowherdProgram, ...words], { cwd: folder });
  }
  await writeFile(path.join(folder, 'data'), Buffer.alloc(mib, 'data'));
  await link(path.join(folder, 'disk.raw'), path.join(folder, 'link.raw'));
  return folder;
}

for (const [where, env] of [
  ['', undefined],
  [', without locks too', { COWHERD_NO_ADDON: '1', COWHERD_LOCKING: 'off', NODE_NO_WARNINGS: '1' }],
] as const) {
  test(`what the source is read from is not written to${where}`, async (t) => {
    const folder = await chain(t);
    for (const words of [
      'disk.raw disk.raw',
      'disk.raw link.raw',
      '-n disk.raw link.raw',
      'top.qcow2 base.qcow2',
      'outer.qcow2 data',
      '-n outer.qcow2 data',
      '-O qcow2 -o data_file=disk.raw disk.raw out',
      '-O qcow2 -o data_file=data outer.qcow2 out',
      '-U -O qcow2 -o data_file=link.raw disk.raw out',
    ]) {
      const message =
        /^cowherd: .* is the source, or part of its backing chain; it would be overwritten\n$/;
      await failsAndLeaves(folder, words.split(' '), message, env);
    }
    for (const words of [
      '-O qcow2 -o data_file=precious disk.raw precious',
      '-O qcow2 -o data_file=new disk.raw new',
      '-O qcow2 -B base.qcow2 -F qcow2 disk.raw base.qcow2',
    ]) {
      const message = /^cowherd: .*The (?:data|backing) file cannot be the image file itself\n$/;
      await failsAndLeaves(folder, words.split(' '), message, env);
    }
  });
}

test('a target that was not touched yet stays', async (t) => {
  const folder = await chain(t);
  for (const [words, message] of [
    ['-O qcow2 -o cluster_size=3 disk.raw precious', /Cluster size/],
    ['-O qcow2 -o refcount_bits=3 disk.raw precious', /[Rr]efcount/],
    ['-O qcow2 -B absent -F qcow2 disk.raw precious', /No such file/],
    ['-f qcow2 -O qcow2 disk.raw precious', /not in qcow2 format/],
    ['-l none -O qcow2 top.qcow2 precious', /snapshot/],
    ['-n -O qcow2 disk.raw precious', /'precious'/],
  ] as const) {
    await failsAndLeaves(folder, words.split(' '), message);
  }
});

const skip = addon === undefined ? 'needs the addon' : false;

test('a target that somebody else is writing to stays', { skip }, async (t) => {
  const folder = await chain(t);
  const image = await openImage(path.join(folder, 'base.qcow2'));
  t.after(() => image.close());
  for (const words of ['-O qcow2 disk.raw base.qcow2', '-O raw disk.raw base.qcow2']) {
    await failsAndLeaves(folder, words.split(' '), /Failed to get "write" lock/);
  }
});
