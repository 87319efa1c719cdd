/** `compare` decides, prints and exits as qemu-img does. */
import assert from 'node:assert/strict';
import { copyFile, truncate } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { assertSame, runCowherd } from '../../support/both-tools.js';
import { fixture, fixtures, unpackFixtures, warnedAbout } from '../../support/fixtures.js';
import { needsTool, runOk } from '../../support/tools.js';

test('fixtures of like size with each other, plainly and strictly', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  const readable = fixtures.filter(({ sha256 }) => sha256 !== undefined);
  for (const [index, a] of readable.entries()) {
    const b = readable.slice(index + 1).find(({ virtualSize }) => virtualSize === a.virtualSize);
    if (b === undefined) continue;
    await t.test(`${a.file} ${b.file}`, async () => {
      const stderr = !warnedAbout.has(a.file) && !warnedAbout.has(b.file);
      await assertSame(['compare', a.file, b.file], folder, { stderr });
      // Of VHDX images the real tool does not know what is stored, and it asks for a VDI block at a time:
      // whether an extent lasts to the end, which counts as a difference, is told of a disk's last block only.
      if ([a, b].some(({ format }) => format === 'vhdx' || format === 'vdi')) return;
      await assertSame(['compare', '-s', b.file, a.file], folder, { stderr });
    });
  }
});

test('an image is identical to its raw content', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  for (const { file, format, sha256 } of fixtures) {
    if (sha256 === undefined) continue;
    await runOk('qemu-img', ['convert', '-f', format, '-O', 'raw', file, 'content'], {
      cwd: folder,
    });
    const words = ['compare', '-f', format, '-F', 'raw', file, 'content'];
    const { stdout, code } = await assertSame(words, folder, {
      stderr: !warnedAbout.has(file),
    });
    assert.deepEqual([stdout, code], ['Images are identical.\n', 0], file);
  }
});

test('sizes may differ if what is longer is zeroes there', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await unpackFixtures(t, [fixture('v2.qcow2'), fixture('base.raw')]);
  await copyFile(path.join(folder, 'base.raw'), path.join(folder, 'longer.raw'));
  await truncate(path.join(folder, 'longer.raw'), 1024 * 1024);
  for (const words of [[], ['-s'], ['-q'], ['-q', '-s']]) {
    await assertSame(['compare', ...words, 'base.raw', 'longer.raw'], folder);
    await assertSame(['compare', ...words, 'longer.raw', 'base.raw'], folder);
  }
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 1 700001 1', 'longer.raw'], { cwd: folder });
  await assertSame(['compare', 'base.raw', 'longer.raw'], folder);
  await assertSame(['compare', 'longer.raw', 'base.raw'], folder);
  await assertSame(['compare', '-f', 'raw', 'v2.qcow2', 'base.raw'], folder);
});

test('what cannot be opened or read has exit codes of its own', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('compressed-garbage.qcow2')]);
  await copyFile(path.join(folder, 'compressed-garbage.qcow2'), path.join(folder, 'other.qcow2'));
  await assertSame(['compare', 'nowhere', 'other.qcow2'], folder);
  await assertSame(['compare', 'other.qcow2', 'nowhere'], folder);
  const words = ['compare', 'compressed-garbage.qcow2', 'other.qcow2'];
  const { stderr } = await assertSame(words, folder, { stderr: false });
  assert.match(stderr, /^cowherd: Error while reading offset 8192 of compressed-garbage\.qcow2: /);
});

test('progress is a line that is written over, and ends with the comparison', async (t) => {
  const folder = await unpackFixtures(t, [fixture('v2.qcow2')]);
  const { stdout } = await runCowherd(['compare', '-p', 'v2.qcow2', 'v2.qcow2'], folder);
  assert.match(
    stdout,
    /^ {4}\(0\.00\/100%\)\r( {4}\(\d+\.\d\d\/100%\)\r)*Images are identical\.\n/,
  );
  assert.match(stdout, /\(100\.00\/100%\)\r[^\r]*\n$/);
});
