/** The program by qemu-io's name: commands on standard input, signals, help, queues. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runCowherd } from '../../support/both-tools.js';
import { assertAlike, bothCalled, ioTwins } from '../../support/io-twins.js';
import { cowherdProgram, needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const makeDisk = async (folder: string): Promise<void> => {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', 'disk', '1M'], { cwd: folder });
};

test('commands on standard input', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, makeDisk);
  for (const input of [
    '',
    'length',
    'write -P 1 0 64k\nread -P 1 0 64k\n',
    'quit\nlength\n',
    'q foo\n',
    '\n\n  \n',
    'foo\nlength\n',
    'read -P 2 0 512\nlength\n',
    'close\nopen disk\naio_write 0 64k\nquit\n',
  ]) {
    await bothCalled(twins, ['disk'], input);
  }
  await bothCalled(twins, [], 'length\nopen disk\nlength\n');
  await assertAlike(twins, 'disk', 'qcow2', 'standard input');
});

test('a prompt is for a terminal, and for who calls the program by the name of the real tool', async (t) => {
  const folder = await temporaryFolder(t);
  await runCowherd(['create', '-q', '-f', 'qcow2', 'disk', '1M'], folder);
  const words = [cowherdProgram, 'io', 'disk'];
  const { stdout } = await run(process.execPath, words, { cwd: folder, input: 'length\n' });
  assert.equal(stdout, '1 MiB\n');
  const command = `${process.execPath} ${words.join(' ')}`;
  if (!needsTool(t, 'script')) return;
  const shown = await run('script', ['-qec', command, '/dev/null'], {
    cwd: folder,
    input: 'length\nquit\n',
  });
  assert.match(shown.stdout, /^[^]*cowherd> [^]*1 MiB\r\ncowherd> /);
});

test('a program that a signal ends', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, makeDisk);
  for (const number of [2, 9, 15]) {
    const lines = ['-c', 'length', '-c', `sigraise ${number}`, '-c', 'length'];
    const { code } = await bothCalled(twins, [...lines, 'disk']);
    assert.equal(code, 128 + number);
  }
  const { stdout } = await bothCalled(twins, ['-c', 'length', '-c', 'abort', 'disk']);
  assert.equal(stdout, '');
});

test('what was written survives a crash as far as it was flushed', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, makeDisk);
  const lines = ['-c', 'write -P 5 0 128k', '-c', 'flush', '-c', 'sigraise 9'];
  await bothCalled(twins, [...lines, 'disk']);
  await bothCalled(twins, ['-c', 'read -P 5 0 128k', 'disk']);
  await assertAlike(twins, 'disk', 'qcow2', 'a crash');
});

test('the name of a link decides what the program is', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const { mine, link } = await ioTwins(t, makeDisk);
  const call = (...words: readonly string[]): Promise<{ stdout: string; code: number }> =>
    run(process.execPath, [link, ...words], { cwd: mine });
  assert.match((await call('--version')).stdout, /^qemu-io version 10\.0 \(cowherd /);
  const help = await call('--help');
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^Usage: qemu-io \[options\] \[IMAGE\]\n/);
  assert.match(help.stdout, /^ {2}qemu-io -c help$/m);
  assert.equal((await call('--odd')).code, 1);
  assert.equal((await call('disk', 'disk')).code, 1);
});

test('help tells of each command', async (t) => {
  const folder = await temporaryFolder(t);
  const { stdout, code } = await runCowherd(['io', '-c', 'help'], folder);
  assert.equal(code, 0);
  const names = stdout.split('\n').flatMap((line) => /^(\w+) .*-- /.exec(line)?.[1] ?? []);
  assert.ok(names.length > 20);
  for (const name of names) {
    const one = await runCowherd(['io', '-c', `help ${name}`], folder);
    assert.ok(stdout.includes(one.stdout.split('\n')[0]), name);
  }
});

test('requests go to each queue in turn, or to one', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await makeDisk(folder);
  const lines = Array.from({ length: 16 }, (_, index) => `aio_write -P ${index} ${index * 4}k 4k`);
  const reads = Array.from({ length: 16 }, (_, index) => `read -P ${index} ${index * 4}k 4k`);
  const chosen = ['queue 3', 'write -P 99 0 64k', 'queue 0', 'read -P 99 0 64k'];
  const all = [...lines, 'aio_flush', ...reads, ...chosen].flatMap((line) => ['-c', line]);
  const { code, stderr } = await runCowherd(['io', '--queues', '4', ...all, 'disk'], folder);
  assert.deepEqual([code, stderr], [0, '']);
  await runOk('qemu-img', ['check', '-q', 'disk'], { cwd: folder });
  const beyond = await runCowherd(['io', '--queues', '2', '-c', 'queue 2', 'disk'], folder);
  assert.equal(beyond.code, 1);
  assert.equal(beyond.stdout, 'there is no queue 2; the last one is 1\n');
});
