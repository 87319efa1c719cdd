/** `dd` copies, says and refuses what qemu-img does. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const cases: readonly (readonly string[])[] = [
  [],
  ['bs=1M'],
  ['bs=64k', 'count=20'],
  ['bs=64k', 'count=20', 'skip=3'],
  ['bs=64k', 'skip=30'],
  ['bs=3', 'count=5'],
  ['bs=1000', 'count=77', 'skip=11'],
  ['bs=1M', 'skip=100'],
  ['count=0'],
  ['bs=2G'],
  ['bs=2147483647', 'count=9223372036854775807'],
  ['bs=0'],
  ['bs=x'],
  ['bs=4G'],
  ['count=-1'],
  ['count=1', 'count=2'],
  ['skip=x'],
  ['foo=1'],
  ['foo'],
  ['-O', 'none'],
];

test('parts of disks, into each format', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const [mine, theirs] = ['mine', 'theirs'].map((name) => path.join(folder, name));
  const content = randomBytes(5_000_704);
  content.fill(0, 1 << 20, 3 << 20);
  for (const each of [mine, theirs]) {
    await mkdir(each);
    await writeFile(path.join(each, 'raw'), content);
    await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'raw', 'qcow2'], { cwd: each });
  }
  for (const from of ['raw', 'qcow2']) {
    for (const to of ['raw', 'qcow2', 'vdi']) {
      for (const operands of cases) {
        const words = ['dd', '-f', from, '-O', to, ...operands, `if=${from}`, 'of=copy'];
        const expected = await runQemuImg(words, theirs);
        const actual = await runCowherd(words, mine);
        assert.deepEqual(actual, expected, words.join(' '));
        if (expected.code !== 0) continue;
        const [one, other] = [mine, theirs].map((each) => path.join(each, 'copy'));
        await runOk('qemu-img', ['compare', '-s', '-f', to, '-F', to, one, other]);
        if (to === 'raw') assert.equal((await stat(one)).size, (await stat(other)).size);
        if (to !== 'qcow2') continue;
        assert.ok((await readFile(one)).equals(await readFile(other)), words.join(' '));
      }
    }
  }
});

test('what is left out or wrong', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'raw'), Buffer.alloc(65_536, 1));
  for (const words of [[], ['if=raw'], ['of=copy'], ['if=none', 'of=copy']]) {
    const expected = await runQemuImg(['dd', ...words], folder);
    assert.deepEqual(await runCowherd(['dd', ...words], folder), expected, words.join(' '));
  }
  const { code, stderr } = await runCowherd(['dd', 'if=raw', 'of=raw'], folder);
  assert.equal(code, 1);
  assert.match(stderr, /cannot be copied into itself/);
  assert.equal((await stat(path.join(folder, 'raw'))).size, 65_536);
});
