/** `map` prints what qemu-img prints, of every fixture. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSame, runCowherd } from '../../support/both-tools.js';
import { fixture, fixtures, unpackFixtures, warnedAbout } from '../../support/fixtures.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

/** Formats of whose images the real tool does not know where anything lies. */
const untold = ['bochs', 'cloop', 'dmg', 'vhdx'];

test('map of every fixture that can be read, for people and programs', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  for (const { file, format, refused } of fixtures) {
    if (refused !== undefined || untold.includes(format)) continue;
    await t.test(file, async () => {
      const stderr = !warnedAbout.has(file);
      await assertSame(['map', file], folder, { stderr });
      await assertSame(['map', '--output=json', file], folder, { stderr });
    });
  }
});

test('a part of an image, down to the byte', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('on-raw.qcow2'), fixture('empty.qcow2')]);
  for (const words of [
    ['-s', '4096', '-l', '8192'],
    ['-s', '4097', '-l', '8192'],
    ['-s', '66k'],
    ['-s', '256k'],
    ['--start-offset=1M'],
    ['-l', '0'],
    ['--max-length=70k'],
  ]) {
    await assertSame(['map', ...words, 'on-raw.qcow2'], folder);
    await assertSame(['map', '--output=json', ...words, 'on-raw.qcow2'], folder);
  }
  await assertSame(['map', 'empty.qcow2'], folder);
  await assertSame(['map', '--output=json', 'empty.qcow2'], folder);
});

test('a format can be forced', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('v2.qcow2')]);
  await assertSame(['map', '-f', 'raw', 'v2.qcow2'], folder);
});

test('damaged tables end the walk with a message', async (t) => {
  const files = ['table-unaligned.qcow2', 'entry-unaligned.qcow2'];
  const folder = await unpackFixtures(t, files.map(fixture));
  for (const file of files) {
    const { code, stderr } = await runCowherd(['map', file], folder);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^qcow2: Image is corrupt: .+\ncowherd: Could not read file metadata: Input\/output error\n$/,
    );
  }
});

test('zeroes at the begin of a data file keep no place there', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const options = { cwd: folder };
  const words = ['-q', '-f', 'qcow2', '-o', 'data_file=data', 'disk', '1M'];
  await runOk('qemu-img', ['create', ...words], options);
  await runOk('qemu-io', ['-c', 'write 0 256k', '-c', 'write -z 0 128k', 'disk'], options);
  await assertSame(['map', '--output=json', 'disk'], folder);
  await runOk('qemu-io', ['-c', 'write -z 0 128k', 'disk'], options);
  await assertSame(['check', '--output=json', 'disk'], folder);
});
