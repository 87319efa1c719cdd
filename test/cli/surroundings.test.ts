/** The program in odd surroundings: outputs that fail, descriptors, signals, links, a folder that is gone. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import {
  lstat,
  mkdir,
  readFile,
  readdir,
  rmdir,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd } from '../support/both-tools.js';
import { fixture, unpackFixtures } from '../support/fixtures.js';
import {
  cowherdProgram,
  needsTool,
  cowherdForShells,
  run,
  runOk,
  temporaryFolder,
} from '../support/tools.js';

const shell = (text: string, cwd: string) =>
  run('sh', ['-c', text.replaceAll('COWHERD', cowherdForShells)], { cwd });

test('standard output that fails is one line and exit code 1, whatever is printed', async (t) => {
  if (!existsSync('/dev/full')) {
    t.skip('no /dev/full here');
    return;
  }
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const commands = [
    'info default.qcow2',
    'map default.qcow2',
    'check default.qcow2',
    'compare default.qcow2 default.qcow2',
    'convert -p -O raw default.qcow2 out',
    'convert default.qcow2 -',
    'create new.raw 1M',
    '--help',
    '--version',
  ];
  for (const command of commands) {
    const { code, stderr } = await shell(`COWHERD ${command} >/dev/full`, folder);
    assert.deepEqual(
      { code, stderr },
      { code: 1, stderr: 'cowherd: write error: No space left on device\n' },
      command,
    );
  }
});

test('errors come before text in one pipe, as with C’s library', async (t) => {
  const folder = await unpackFixtures(t, [fixture('entry-unaligned.qcow2')]);
  const { stdout } = await shell('COWHERD map entry-unaligned.qcow2 2>&1 | cat', folder);
  assert.match(stdout, /^qcow2: .+\ncowherd: Could not read .+\nOffset .+File\n$/);
});

test('why an image cannot be made comes after what was to be made', async (t) => {
  const folder = await temporaryFolder(t);
  const { stdout } = await shell(
    'COWHERD create -f qcow2 -o cluster_size=1234 disk 1M 2>&1 | cat',
    folder,
  );
  assert.match(stdout, /^Formatting 'disk', .+\ncowherd: disk: Cluster size must be .+\n$/);
});

test('progress beside the disk on standard output goes to standard error', async (t) => {
  const folder = await unpackFixtures(t, [fixture('base.raw')]);
  const { code, stderr } = await shell('COWHERD convert -p base.raw - >out', folder);
  assert.equal(code, 0);
  assert.match(stderr, /^ {4}\(0\.00\/100%\)\r[^]*\(100\.00\/100%\)\r\n$/);
  assert.deepEqual(
    await readFile(path.join(folder, 'out')),
    await readFile(path.join(folder, 'base.raw')),
  );
});

test('progress is refused to descriptors that nobody opened for it, before anything begins', async (t) => {
  const folder = await unpackFixtures(t, [fixture('base.raw')]);
  for (const descriptor of [3, 5, 7, 8, 12, 16, 99]) {
    const words = ['convert', `--progress=fd:${descriptor}`, 'base.raw', 'out'];
    const { code, stderr } = await run(process.execPath, [cowherdProgram, ...words], {
      cwd: folder,
    });
    const line = `cowherd: File descriptor ${descriptor} for progress is not open for writing\n`;
    assert.deepEqual({ code, stderr }, { code: 1, stderr: line });
  }
  assert.equal(existsSync(path.join(folder, 'out')), false);
  const reading = await shell('COWHERD convert --progress=fd:7 base.raw out 7<base.raw', folder);
  assert.match(reading.stderr, /descriptor 7 for progress is not open for writing/);
  for (const sink of ['7>lines', '7>&1 | cat >lines']) {
    await shell(`COWHERD convert --progress=fd:7 base.raw out ${sink}`, folder);
    assert.match(await readFile(path.join(folder, 'lines'), 'utf8'), /^\{"doneBytes":/);
  }
});

test('SIGUSR1 tells how far it is and opens no debugger, with -p as without', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(6 << 20, 1));
  for (const option of ['-q', '-p']) {
    const words = ['convert', option, '-r', '2M', 'disk.raw', `out${option}`];
    const child = spawn(process.execPath, [cowherdProgram, ...words], { cwd: folder });
    let output = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    const ended = once(child, 'close');
    while (!existsSync(path.join(folder, `out${option}`))) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const shown = output.length;
    child.kill('SIGUSR1');
    await new Promise((resolve) => setTimeout(resolve, 300));
    if (option === '-q') assert.match(errors, /^ {4}\(\d+\.\d\d\/100%\)\n/);
    else assert.ok(output.length > shown);
    assert.deepEqual(await ended, [0, null]);
    assert.doesNotMatch(errors, /[Dd]ebugger/);
  }
});

test('a working directory that is gone is told in one line, and names from the root still work', async (t) => {
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  await mkdir(path.join(folder, 'gone'));
  await rmdir(path.join(folder, 'gone'));
  for (const command of [
    'info x',
    'map x',
    'convert x y',
    'create y 1M',
    'check x',
    'compare x y',
  ]) {
    const words = `mkdir ${folder}/gone; cd ${folder}/gone; rmdir ${folder}/gone; COWHERD ${command}`;
    const { code, stderr } = await shell(words, folder);
    assert.ok(code > 0, command);
    assert.match(
      stderr.replaceAll(/^sh: .*\n/gm, ''),
      /^cowherd: .+: No such file or directory\n$/,
    );
  }
  const words = `mkdir ${folder}/gone; cd ${folder}/gone; rmdir ${folder}/gone; COWHERD info ${folder}/default.qcow2`;
  assert.equal((await shell(words, folder)).code, 0);
});

test('called through a link named qemu-img it speaks as that', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('leak.qcow2'), fixture('base.raw')]);
  const link = path.join(folder, 'qemu-img');
  await symlink(cowherdProgram, link);
  const lines = [
    'info none.qcow2',
    'convert base.raw',
    'convert --frobnicate',
    'convert -l snapshot.foo=1 base.raw out',
    'create -f qcow2 out',
    'nonsense',
    'check base.raw',
    'compare base.raw none.raw',
    'map --output=xml base.raw',
    '',
  ];
  for (const line of lines) {
    const words = line.split(' ').filter((word) => word !== '');
    const expected = await run('qemu-img', words, { cwd: folder });
    const actual = await run(process.execPath, [link, ...words], { cwd: folder });
    assert.deepEqual(actual, expected, line);
  }
  const version = await run(process.execPath, [link, '--version'], { cwd: folder });
  assert.match(version.stdout, /^qemu-img version \d+\.\d+ \(cowherd \d+\.\d+\.\d+\)\n$/);
});

test('a conversion through a link that fails removes what it made, not the link', async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(path.join(folder, 'real'));
  await symlink('real/made.img', path.join(folder, 'link.img'));
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(1 << 20, 1));
  // The source ends within its only cluster of data once it is converted again.
  const words = ['convert', '-c', '-O', 'qcow2', 'disk.raw', 'disk.qcow2'];
  assert.equal((await runCowherd(words, folder)).code, 0);
  await truncate(path.join(folder, 'disk.qcow2'), 5 * 65536 + 10);
  const { code, stderr } = await runCowherd(['convert', 'disk.qcow2', 'link.img'], folder);
  assert.equal(code, 1, stderr);
  assert.ok((await lstat(path.join(folder, 'link.img'))).isSymbolicLink());
  assert.deepEqual(await readdir(path.join(folder, 'real')), []);
});

test('names with a colon after file: are printed as names that can be opened', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await runOk('qemu-img', ['create', '-q', '-f', 'raw', 'file:with:colon.raw', '1M'], {
    cwd: folder,
  });
  for (const command of ['info', 'map']) {
    const words = [command, '-f', 'raw', '--output=json', 'file:with:colon.raw'];
    const expected = await run('qemu-img', words, { cwd: folder });
    const { stdout } = await runCowherd(words, folder);
    assert.equal(stdout, expected.stdout);
  }
});
