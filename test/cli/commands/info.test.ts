/** `info` prints what qemu-img prints, of every fixture. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { infoText } from '../../../src/cli/text/info-human.js';
import { infoJson } from '../../../src/cli/text/info-json.js';
import type { ImageInfo } from '../../../src/image/api/reports.js';
import { openImage } from '../../../src/image/graph/open.js';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { fixture, fixtures, unpackFixtures } from '../../support/fixtures.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

test('info of every fixture, for people and programs', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  for (const { file } of fixtures) {
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

test('encrypted images are described without their secret, and nothing else', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const secret = ['--object', 'secret,id=s,data=abc'];
  const fast = 'encrypt.key-secret=s,encrypt.format=luks,encrypt.iter-time=10';
  for (const options of [
    'encrypt.key-secret=s,encrypt.format=aes',
    fast,
    `${fast},encrypt.cipher-alg=serpent-256,encrypt.hash-alg=sha512`,
    `${fast},encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256`,
  ]) {
    await t.test(options, async () => {
      const words = ['create', '-q', '-f', 'qcow2', ...secret, '-o', options, 'e.qcow2', '1M'];
      await runOk('qemu-img', words, { cwd: folder });
      await assertSame(['info', 'e.qcow2'], folder);
      await assertSame(['info', '--output=json', 'e.qcow2'], folder);
      for (const other of [['map'], ['check'], ['convert', '-O', 'raw'], ['bench', '-c', '1']]) {
        const more = other[0] === 'convert' ? ['out.raw'] : [];
        await assertSame([...other, 'e.qcow2', ...more], folder);
      }
      const image = await openImage(`${folder}/e.qcow2`, { readOnly: true, forInfo: true });
      const reading = image.read(new Uint8Array(512), 0);
      await assert.rejects(reading, { code: 'ERR_COWHERD_UNSUPPORTED' });
      await image.close();
    });
  }
});

test('backing names that cannot be opened do not keep an image from being described', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const name of [
    'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}',
    'nbd://localhost:1/x',
    'nonsense:below',
    'file:below.qcow2',
  ]) {
    const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', 'qcow2', 'top.qcow2'];
    await runOk('qemu-img', [...words, '1M'], { cwd: folder });
    await assertSame(['info', 'top.qcow2'], folder);
    await assertSame(['info', '--output=json', 'top.qcow2'], folder);
  }
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
  protocol: 'host_device',
  children: [],
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

test('what no path says is told by all its options, by which it can be opened again', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const tool = (...words: readonly string[]) => runOk('qemu-img', words, { cwd: folder });
  await tool('create', '-q', '-f', 'qcow2', 'base', '1M');
  await tool('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', 'disk');
  await tool('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', 'copy');
  const quorum = {
    ...{ driver: 'quorum', 'vote-threshold': 1 },
    children: ['disk', 'copy'].map((filename) => ({ driver: 'file', filename })),
  };
  const debugged = 'file.set-state.0.event=read_aio,file.set-state.0.new_state=42';
  for (const words of [
    [`json:${JSON.stringify({ driver: 'qcow2', file: quorum })}`],
    ['--image-opts', `driver=qcow2,file.driver=blkdebug,${debugged},file.image.filename=disk`],
  ]) {
    const expected = await runQemuImg(['info', ...words], folder);
    const actual = await runCowherd(['info', ...words], folder);
    const line = (text: string, what: string) =>
      text.split('\n').find((each) => each.startsWith(what)) ?? '';
    assert.equal(line(actual.stdout, 'backing file:'), line(expected.stdout, 'backing file:'));
    const name = line(actual.stdout, 'image: ').slice('image: '.length);
    assert.match(line(expected.stdout, 'image: '), /^image: json:/);
    assert.match(name, /^json:/);
    const again = await runCowherd(['info', name], folder);
    assert.equal(again.stdout, actual.stdout);
    const theirs = await runQemuImg(['info', name], folder);
    assert.equal(theirs.code, 0, theirs.stderr);
  }
  const { code, stderr } = await runCowherd(
    ['compare', `json:${JSON.stringify({ driver: 'qcow2', file: quorum })}`, 'disk'],
    folder,
  );
  assert.equal(code, 2);
  assert.match(
    stderr,
    /^cowherd: [^\n]*'base' is named from the folder of 'disk', which lies in several\n$/,
  );
});
