/** `info` and `check` of images by their names tell what the real tool does, and what an open image does. */
import assert from 'node:assert/strict';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { check } from '../../src/jobs/check.js';
import { info } from '../../src/jobs/info.js';
import { needsTool, run, runOk, temporaryFolder } from '../support/tools.js';

test('an image whose backing file, data file and secret are missing is described', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const at = (name: string): string => path.join(folder, name);
  const secret = ['--object', 'secret,id=key,data=hidden'];
  await runOk('qemu-img', ['create', '-q', '-f', 'raw', at('base'), '3M']);
  const below = ['-b', 'base', '-F', 'raw'];
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...below, at('overlay')]);
  const beside = ['-o', 'data_file=beside'];
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...beside, at('split'), '1M'], {
    cwd: folder,
  });
  const encrypted = ['-o', 'encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10'];
  const words = ['create', '-q', ...secret, '-f', 'qcow2', ...encrypted, at('locked'), '2M'];
  await runOk('qemu-img', words);
  await rm(at('base'));
  await rm(at('beside'));
  for (const name of ['overlay', 'split', 'locked']) {
    const stdout = await runOk('qemu-img', ['info', '--output=json', at(name)]);
    const expected = JSON.parse(stdout) as Readonly<Record<string, unknown>>;
    const facts = await info(at(name));
    assert.equal(facts.virtualSize, expected['virtual-size'], name);
    assert.equal(facts.format, expected['format'], name);
    assert.equal(facts.backingFilename, expected['backing-filename'], name);
    assert.equal(facts.encrypted === true, expected['encrypted'] === true, name);
  }
  await assert.rejects(info(at('nothing')), { code: 'ERR_COWHERD_NOT_FOUND', message: /nothing/ });
  await assert.rejects(info(at('overlay'), { unknown: 1 } as never), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
  });
});

test('an image is checked, repaired, and checked again', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M']);
  await runOk('qemu-io', ['-c', 'write 0 64k', disk]);
  assert.equal((await check(disk)).leaks, 0);
  // A count of a cluster that nothing refers to.
  const file = await open(disk, 'r+');
  const stdout = await runOk('qemu-img', ['info', '--output=json', disk]);
  assert.match(stdout, /"refcount-bits": 16/);
  await file.write(Buffer.from([0, 1]), 0, 2, 0x20000 + 2 * 20);
  await file.truncate(21 * 65536);
  await file.close();
  assert.equal((await run('qemu-img', ['check', disk])).code, 3);
  const findings: string[] = [];
  const found = await check(disk, { onFinding: ({ message }) => findings.push(message) });
  assert.equal(found.leaks, 1);
  assert.equal(findings.length, 1);
  assert.equal((await run('qemu-img', ['check', disk])).code, 3);
  const left = await check(disk, { repair: 'leaks' });
  assert.deepEqual([left.leaks, left.leaksFixed, left.corruptions], [0, 1, 0]);
  await runOk('qemu-img', ['check', disk]);
  await assert.rejects(check(disk, { repair: 'some' as never }), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
  });
  await runOk('qemu-img', ['create', '-q', '-f', 'raw', disk, '1M']);
  await assert.rejects(check(disk, { image: { format: 'raw' } }), {
    code: 'ERR_COWHERD_UNSUPPORTED',
  });
});
