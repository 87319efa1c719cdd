/** What convert refuses, and how it says so; the real tool says the same. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { convert } from '../../src/jobs/convert.js';
import { assertSame, runCowherd } from '../support/both-tools.js';
import { findTool, needsTool, run, runOk, temporaryFolder } from '../support/tools.js';

test('snapshots by id, by name, and by both', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const cwd = await temporaryFolder(t);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd });
  await runOk('qemu-img', ['snapshot', '-c', 'one', 'a.qcow2'], { cwd });
  await runOk('qemu-img', ['snapshot', '-c', '1', 'a.qcow2'], { cwd });
  const choices = ['one', '1', '2', '3', 'snapshot.id=1', 'snapshot.id=one', 'snapshot.name=1'];
  choices.push('snapshot.name=2', 'snapshot.id=2,snapshot.name=one', 'snapshot.id=');
  choices.push('snapshot.id=1,snapshot.name=one', 'snapshot.foo=1');
  for (const choice of choices) await assertSame(['convert', '-l', choice, 'a.qcow2', 'o'], cwd);
});

test('options that exclude each other, no limit, and files below that are not there', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const cwd = await temporaryFolder(t);
  const make = (...words: string[]) => runOk('qemu-img', ['create', '-q', ...words], { cwd });
  await make('-f', 'qcow2', 'a.qcow2', '1M');
  await make('-f', 'qcow2', '-u', '-b', 'none.raw', '-F', 'raw', 'top.qcow2', '1M');
  await assertSame(['convert', '-C', '-c', '-O', 'qcow2', 'a.qcow2', 'o'], cwd);
  await assertSame(['convert', '-r', '0', '-O', 'qcow2', 'a.qcow2', 'o'], cwd);
  await assertSame(['convert', 'top.qcow2', 'o'], cwd);
  await assertSame(['map', 'top.qcow2'], cwd);
  await assertSame(['compare', 'top.qcow2', 'a.qcow2'], cwd);
  const words = ['convert', '-O', 'qcow2', '-B', 'none.raw', '-F', 'raw', 'a.qcow2'];
  await assertSame([...words, 'new'], cwd);
  // qemu-img leaves a file.
  assert.equal((await runCowherd([...words, 'other'], cwd)).code, 1);
  assert.equal(existsSync(path.join(cwd, 'other')), false);
});

test('a block device that only reads is refused when it is opened', async (t) => {
  if (!needsTool(t, 'qemu-img') || findTool('losetup') === undefined) return;
  const cwd = await temporaryFolder(t);
  await runOk('truncate', ['-s', '2M', 'disk', 'a.raw'], { cwd });
  const attached = await run('losetup', ['-r', '-f', '--show', 'disk'], { cwd });
  if (attached.code !== 0) {
    t.skip('no loop devices here');
    return;
  }
  const device = attached.stdout.trim();
  t.after(() => run('losetup', ['-d', device]));
  await assertSame(['convert', '-n', '-O', 'raw', 'a.raw', device], cwd);
  await assertSame(['info', '-f', 'raw', device], cwd);
  const { code, stderr } = await runCowherd(['convert', 'a.raw', device], cwd);
  assert.equal(code, 1);
  assert.match(stderr, /^cowherd: .+: The device is not writable: Permission denied\n$/);
});

test('numbers with which nothing would be copied, or for ever, are refused', async (t) => {
  const folder = await temporaryFolder(t);
  await runOk('truncate', ['-s', '1M', path.join(folder, 'a.raw')]);
  const wrong = [
    ...[0, -1, NaN, 1.5, Infinity].map((parallel) => ({ parallel })),
    ...[-1, 2 ** 40, 2 ** 32, 0.5, NaN].map((sparseSize) => ({ sparseSize })),
    ...[0, -5, NaN].map((rateLimit) => ({ rateLimit })),
    ...[0, 1.5, 1000].map((queues) => ({ queues })),
  ];
  for (const options of wrong) {
    await assert.rejects(
      convert(path.join(folder, 'a.raw'), path.join(folder, 'out'), options),
      { code: 'ERR_COWHERD_INVALID_ARGUMENT' },
      JSON.stringify(options),
    );
    assert.equal(existsSync(path.join(folder, 'out')), false);
  }
});
