/** Hints to the file system about a new file, on XFS, which has them, and in memory, which has not. */
import assert from 'node:assert/strict';
import { rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { assertSame, runCowherd, runQemuImg } from '../support/both-tools.js';
import { smallDisk } from '../support/small-disk.js';
import { needsTool } from '../support/tools.js';
import { xfsFolder } from '../support/xfs-folder.js';

const mib = 1024 * 1024;

test('the extent size hint is given and shown as the real tool does it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'mkfs.xfs')) return;
  const folder = await xfsFolder(t);
  if (folder === undefined) return;
  for (const line of [
    '-f qcow2 a 64M',
    '-f raw a 64M',
    '-f qcow2 -o extent_size_hint=4M a 64M',
    '-f raw -o extent_size_hint=2M,nocow=on a 64M',
    '-f raw -o extent_size_hint=0 a 64M',
    '-f raw -o extent_size_hint=4097 a 64M',
    '-f raw -o extent_size_hint=5G a 64M',
    '-f qcow2 -o extent_size_hint=2M,data_file=b a 64M',
  ]) {
    const words = ['create', ...line.split(' ')];
    const outcomes: unknown[] = [];
    for (const program of [runQemuImg, runCowherd]) {
      await rm(path.join(folder, 'a'), { force: true });
      await rm(path.join(folder, 'b'), { force: true });
      const created = await program(words, folder);
      const infos: unknown[] = [];
      for (const file of ['a', 'b']) {
        if ((await stat(path.join(folder, file)).catch(() => undefined)) === undefined) continue;
        const format = file === 'a' && line.startsWith('-f qcow2') ? 'qcow2' : 'raw';
        const asking = ['info', '-f', format, file];
        const theirs = await runQemuImg(asking, folder);
        assert.deepEqual(await runCowherd(asking, folder), theirs, line);
        infos.push(/extent size hint: \d+/.exec(theirs.stdout)?.[0]);
      }
      outcomes.push({ created, infos });
    }
    assert.deepEqual(outcomes[1], outcomes[0], line);
  }
});

test('a hint that cannot be given is a warning, if it was asked for', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await smallDisk(t, 4 * mib);
  if (folder === undefined) return;
  for (const line of ['-o extent_size_hint=1M a 1M', '-o extent_size_hint=0 a 1M', 'a 1M']) {
    const words = ['create', '-f', 'raw', ...line.split(' ')];
    assert.deepEqual(await runCowherd(words, folder), await runQemuImg(words, folder), line);
  }
  for (const format of ['raw', 'qcow2']) {
    for (const options of ['extent_size_hint=1M', 'extent_size_hint=0', 'nocow=on']) {
      for (const quiet of [[], ['-q']]) {
        const words = ['convert', ...quiet, '-O', format, '-o', options, 'a', 'b'];
        await assertSame(words, folder);
      }
    }
  }
});
