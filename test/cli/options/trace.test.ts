/** `-T` before a command, and engines that go by other names, are taken as the real tool takes them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, temporaryFolder } from '../../support/tools.js';

test('events are asked for that do not exist', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk'), Buffer.alloc(65536));
  await writeFile(path.join(folder, 'events'), '# none\nnone_such\n\nother*\n-gone\n');
  for (const words of [
    ['-T', 'none_such'],
    ['--trace', 'enable=none_such'],
    ['-T', 'none_such,file=log'],
    ['-T', 'qcow9_*'],
    ['-T', 'events=events'],
    ['-T', 'events=absent'],
    ['-T', 'nonsense=1'],
    ['-T', 'one', '-T', 'two'],
  ]) {
    const measured = ['measure', '-O', 'raw', '-f', 'raw', 'disk'];
    await assertSame([...words, ...measured], folder);
  }
  assert.deepEqual(await runCowherd(['-T', 'help'], folder), { code: 0, stdout: '', stderr: '' });
});

test('the native engine is for images that are opened around the page cache', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk'), Buffer.alloc(65536));
  const bench = ['bench', '-f', 'raw', '-c', '2', '-d', '1', '-q'];
  for (const words of [['-i', 'native'], ['-n'], ['-i', 'native', '-t', 'writeback']]) {
    const expected = await runQemuImg([...bench, ...words, 'disk'], folder);
    const { code, stderr } = await runCowherd([...bench, ...words, 'disk'], folder);
    assert.deepEqual([code, stderr], [expected.code, expected.stderr], words.join(' '));
  }
  for (const words of [
    ['-i', 'native', '-t', 'none'],
    ['-n', '-t', 'directsync'],
  ]) {
    const { code, stderr } = await runCowherd([...bench, ...words, 'disk'], folder);
    assert.equal(code, 0, stderr);
  }
});
