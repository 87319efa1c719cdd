/** `bench` takes qemu-img's options, says what it does in the same words, and does it on many queues. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

async function folderWithImage(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  await createImage(path.join(folder, 'disk.qcow2'), { format: 'qcow2', size: '32M' });
  return folder;
}

/** The lines that say what is going to be done; times differ. */
const firstLines = (text: string): string => text.replace(/^Run completed[^]*$/m, '');

test('what is announced is what qemu-img announces', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await folderWithImage(t);
  for (const words of [
    ['-c', '500', 'disk.qcow2'],
    ['-c', '500', '-d', '3', '-s', '8k', '-S', '1M', '-o', '512', 'disk.qcow2'],
    ['-w', '-c', '300', '--pattern', '7', '-t', 'none', 'disk.qcow2'],
    ['-w', '-c', '300', '--flush-interval', '100', 'disk.qcow2'],
    ['-w', '-c', '300', '--flush-interval', '64', '--no-drain', '-i', 'threads', 'disk.qcow2'],
    ['-q', '-c', '10', '-f', 'qcow2', 'disk.qcow2'],
  ]) {
    const theirs = await runQemuImg(['bench', ...words], folder);
    const ours = await runCowherd(['bench', ...words], folder);
    assert.equal(firstLines(ours.stdout), firstLines(theirs.stdout), words.join(' '));
    assert.deepEqual([ours.code, theirs.code], [0, 0], ours.stderr + theirs.stderr);
    const check = await run('qemu-img', ['check', path.join(folder, 'disk.qcow2')]);
    assert.equal(check.code, 0, check.stdout);
  }
});

test('bad options are refused in the same words', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await folderWithImage(t);
  for (const words of [
    ['-c', '0', 'disk.qcow2'],
    ['-c', 'x', 'disk.qcow2'],
    ['-d', '0', 'disk.qcow2'],
    ['-o', '-1', 'disk.qcow2'],
    ['-s', '0', 'disk.qcow2'],
    ['-s', '3G', 'disk.qcow2'],
    ['-S', 'x', 'disk.qcow2'],
    ['-w', '--pattern', '300', 'disk.qcow2'],
    ['--flush-interval', '100', 'disk.qcow2'],
    ['-w', '--flush-interval', '2', 'disk.qcow2'],
    ['-w', '--flush-interval', 'x', 'disk.qcow2'],
    ['-t', 'nonsense', 'disk.qcow2'],
    ['-i', 'nonsense', 'disk.qcow2'],
    ['disk.qcow2', 'disk.qcow2'],
    [],
    ['nowhere.qcow2'],
  ]) {
    await assertSame(['bench', ...words], folder);
  }
});

for (const queues of ['1', '3']) {
  test(`the JSON of ${queues} queues tells every request`, async (t) => {
    const folder = await folderWithImage(t);
    const words = ['-c', '2000', '-w', '--read-percent', '40', '--pattern', 'rand', '-d', '8'];
    const rest = ['--flush-interval', '50', '--queues', queues, '--output=json', 'disk.qcow2'];
    const { stdout, stderr, code } = await runCowherd(['bench', ...words, ...rest], folder);
    assert.equal(code, 0, stderr);
    const report = JSON.parse(stdout) as {
      requests: number;
      'latency-us': { p50: number; p99: number };
      queues: { reads: number; writes: number; flushes: number }[];
    };
    assert.equal(report.requests, 2000);
    assert.ok(report['latency-us'].p50 > 0 && report['latency-us'].p50 <= report['latency-us'].p99);
    const busy = report.queues.filter(({ reads, writes }) => reads + writes > 0);
    assert.equal(busy.length, Number(queues));
    const sum = busy.reduce((all, { reads, writes }) => all + reads + writes, 0);
    assert.equal(sum, 2000);
    assert.ok(busy.every(({ reads, flushes }) => reads > 0 && flushes > 0));
    if (!needsTool(t, 'qemu-img')) return;
    const check = await run('qemu-img', ['check', path.join(folder, 'disk.qcow2')]);
    assert.equal(check.code, 0, check.stdout);
  });
}

test('queues on threads take a raw image, alone and as a backing file', async (t) => {
  const folder = await folderWithImage(t);
  const create = async (...words: readonly string[]): Promise<void> => {
    const { code, stderr } = await runCowherd(['create', '-q', ...words], folder);
    assert.equal(code, 0, stderr);
  };
  await create('-f', 'raw', 'disk.raw', '4M');
  await create('-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', 'above.qcow2');
  for (const name of ['disk.raw', 'above.qcow2']) {
    for (const kind of [[], ['-w']]) {
      const words = ['bench', '-q', '-c', '100', '--queues', '2', ...kind, name];
      const { code, stderr } = await runCowherd(words, folder);
      assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
    }
  }
});

test('--stats prints a line for each queue and their sum', async (t) => {
  const folder = await folderWithImage(t);
  const words = ['bench', '-c', '100', '--queues', '2', '--stats', 'disk.qcow2'];
  const { stdout, code } = await runCowherd(words, folder);
  assert.equal(code, 0);
  const lines = stdout.split('\n');
  const heading = lines.findIndex((line) => /^Queues of 'disk.qcow2':$/.test(line));
  assert.match(lines[heading + 1], /queue\s+reads\s+writes/);
  assert.match(lines[heading + 5], /^\s*all\s+100\s+0\s/);
});

test('a failing request is one line and exit code 1, on threads too', async (t) => {
  const folder = await folderWithImage(t);
  for (const queues of ['1', '2']) {
    const words = ['bench', '-c', '10', '-s', '64M', '--queues', queues, 'disk.qcow2'];
    const { stderr, code } = await runCowherd(words, folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: Failed request: 'disk.qcow2': [^\n]*\n$/);
  }
});
