/** `info` prints what qemu-img prints, of every fixture. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { infoText } from '../../src/cli/info-human.js';
import { infoJson } from '../../src/cli/info-json.js';
import type { ImageInfo } from '../../src/image/api.js';
import { assertSame, runCowherd } from '../support/both-tools.js';
import { fixture, fixtures, unpackFixtures } from '../support/fixtures.js';
import { needsTool } from '../support/tools.js';

test('info of every fixture, for people and programs', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  for (const { file } of fixtures) {
    // What is encrypted is refused as a whole for now.
    if (file.startsWith('encrypted-')) continue;
    await t.test(file, async () => {
      await assertSame(['info', file], folder);
      await assertSame(['info', '--output=json', file], folder);
    });
  }
});

test('info of chains, whose links are named from the folder of the link above', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  const chains = fixtures.filter(({ needs }) => needs.length > 0).map(({ file }) => file);
  for (const file of [...chains, 'default.qcow2', 'backing-missing.qcow2', 'backing-loop.qcow2']) {
    await t.test(file, async () => {
      await assertSame(['info', '--backing-chain', file], folder);
      await assertSame(['info', '-b', '--output=json', `./${file}`], folder);
      await assertSame(['info', '-b', '--output=json', `${folder}/${file}`], folder);
    });
  }
});

test('an image can be named by options and have its format stated', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('on-raw.qcow2')]);
  for (const words of [
    ['-f', 'raw', 'on-raw.qcow2'],
    ['-U', '-f', 'qcow2', 'on-raw.qcow2'],
    ['file:on-raw.qcow2'],
    ['--image-opts', 'driver=qcow2,file.filename=on-raw.qcow2'],
    ['--image-opts', 'driver=qcow2,file.driver=file,file.filename=on-raw.qcow2'],
    ['--image-opts', 'file.filename=on-raw.qcow2'],
  ]) {
    await assertSame(['info', ...words], folder);
  }
});

test('encrypted images are refused with the reason', async (t) => {
  const folder = await unpackFixtures(t, [fixture('encrypted-luks.qcow2')]);
  const { code, stderr } = await runCowherd(['info', 'encrypted-luks.qcow2'], folder);
  assert.equal(code, 1);
  assert.match(stderr, /^cowherd: Could not open 'encrypted-luks.qcow2': .*[Ee]ncrypted/);
});

const example: ImageInfo = {
  filename: 'a.qcow2',
  format: 'qcow2',
  virtualSize: 1048576,
  fileLength: 0,
  actualSize: undefined,
  clusterSize: 65536,
  dirtyFlag: true,
  blockDevice: true,
  snapshots: [
    {
      id: '1',
      name: 'one',
      vmStateSize: 0,
      dateSeconds: 0,
      dateNanoseconds: 0,
      vmClockSeconds: 3661,
      vmClockNanoseconds: 1_999_999,
    },
  ],
};

test('what is unknown is said to be, or left out', () => {
  const text = infoText(example);
  assert.match(text, /^disk size: unavailable$/m);
  assert.match(text, /^cleanly shut down: no$/m);
  assert.match(text, /^ {4}protocol type: host_device$/m);
  assert.match(text, /^1 {7}one {19}0 B 1970-01-01 00:00:00 {2}0001:01:01\.001 {9}--$/m);
  const printed: unknown = JSON.parse(JSON.stringify(infoJson(example)));
  assert.ok(!Object.keys(printed as object).includes('actual-size'));
});
