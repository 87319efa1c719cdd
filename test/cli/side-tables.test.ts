/**
 * Damage of what stands beside the disk's data: header extensions, snapshot tables, bitmap
 * directories. Each command opens what the real tool opens, or more, and says the same.
 */
import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { adviceOf } from '../../src/cli/process/cli-error.js';
import { assertSame, runCowherd } from '../support/both-tools.js';
import { DamagedImage } from '../support/damaged-image.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';

const name = 'disk.qcow2';

/** Commands that open an image in different ways. */
const commands: readonly (readonly string[])[] = [
  ['info', name],
  ['info', '--output=json', name],
  ['map', name],
  ['compare', name, name],
  ['check', name],
];

/** A folder with an image made by steps of qemu-img and qemu-io. */
async function imageOf(
  t: TestContext,
  options: string,
  ...steps: readonly (readonly string[] | string)[]
): Promise<string> {
  const folder = await temporaryFolder(t);
  const words = ['create', '-q', '-f', 'qcow2', '-o', options, name, '64M'];
  await runOk('qemu-img', words, { cwd: folder });
  for (const step of steps) {
    if (typeof step === 'string') await runOk('qemu-io', ['-c', step, name], { cwd: folder });
    else await runOk('qemu-img', [...step, name], { cwd: folder });
  }
  return folder;
}

async function damage(folder: string, change: (image: DamagedImage) => void): Promise<void> {
  const file = path.join(folder, name);
  const image = new DamagedImage(file);
  change(image);
  await writeFile(file, image.bytes);
}

const takeSnapshot = (tag: string): readonly string[] => ['snapshot', '-c', tag];

test('a snapshot of a machine that ran for longer than 2^53 nanoseconds', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await imageOf(t, 'cluster_size=64k', 'write 0 64k', ['snapshot', '-c', 'one']);
  for (const clock of [200n * 86400n * 10n ** 9n, 2n ** 64n - 1n]) {
    await damage(folder, (image) => {
      image.bytes.writeBigUInt64BE(clock, image.snapshot(0) + 24);
    });
    for (const words of commands) await assertSame(words, folder);
    await assertSame(['convert', '-l', 'one', '-O', 'raw', name, 'out.raw'], folder);
    const { code, stderr } = await runCowherd(['bench', '-q', '-w', '-c', '1', name], folder);
    assert.equal(code, 0, stderr);
  }
});

test('a snapshot table that is cut off reads on with zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const steps = ['write 0 128k', takeSnapshot('one'), takeSnapshot('two')];
  const folder = await imageOf(t, 'cluster_size=4k', ...steps);
  const file = path.join(folder, name);
  const whole = await readFile(file);
  const { snapshotTableOffset } = new DamagedImage(file, whole);
  for (const kept of [0, 20, 39, 41, 60, 80, 100]) {
    await writeFile(file, whole);
    await truncate(file, snapshotTableOffset + kept);
    for (const words of commands.slice(0, 4)) await assertSame(words, folder);
  }
});

test('a snapshot table with too much in it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await imageOf(t, 'cluster_size=4k', takeSnapshot('one'), takeSnapshot('two'));
  const file = path.join(folder, name);
  const whole = await readFile(file);
  const tableOffset = new DamagedImage(file).snapshotTableOffset;
  const cases: readonly ((image: DamagedImage) => void)[] = [
    (image) => image.bytes.writeUInt32BE(1025, image.snapshot(0) + 36),
    (image) => image.bytes.writeUInt32BE(0xffffffff, image.snapshot(1) + 36),
    (image) => image.bytes.writeUInt32BE(65537, 60),
  ];
  for (const change of cases) {
    await writeFile(file, whole);
    await damage(folder, change);
    for (const words of commands) await assertSame(words, folder);
    await assertSame(['convert', '-O', 'raw', name, 'out.raw'], folder);
  }
  // Entries of the largest size, more of them than a table may hold.
  const entry = Buffer.alloc(40 + 1024 + 2 * 0xffff + 2);
  entry.writeUInt16BE(0xffff, 12);
  entry.writeUInt16BE(0xffff, 14);
  entry.writeUInt32BE(1024, 36);
  const count = Math.ceil((64 * 1024 * 1024) / entry.length) + 1;
  await writeFile(file, whole.subarray(0, tableOffset));
  await writeFile(file, Buffer.concat(Array.from({ length: count }, () => entry)), { flag: 'a' });
  const handle = Buffer.from(await readFile(file));
  handle.writeUInt32BE(count, 60);
  await writeFile(file, handle);
  for (const words of commands.slice(0, 4)) await assertSame(words, folder);
});

test('a snapshot whose L1 table cannot be is not loaded', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await imageOf(t, 'cluster_size=4k', 'write 0 4k', takeSnapshot('one'));
  const whole = await readFile(path.join(folder, name));
  const cases: readonly ((image: DamagedImage) => void)[] = [
    (image) => {
      image.change(image.snapshot(0), (offset) => offset + 512n);
    },
    (image) => image.bytes.writeUInt32BE(0x10000000, image.snapshot(0) + 8),
  ];
  for (const change of cases) {
    await writeFile(path.join(folder, name), whole);
    await damage(folder, change);
    await assertSame(['convert', '-l', 'one', '-O', 'raw', name, 'out.raw'], folder);
    for (const words of commands.slice(0, 4)) await assertSame(words, folder);
  }
});

test('a bitmap directory that is damaged keeps nobody from the disk', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await imageOf(t, 'cluster_size=4k', 'write 0 8k');
  await runOk('qemu-img', ['bitmap', '--add', name, 'history'], { cwd: folder });
  const file = path.join(folder, name);
  const whole = await readFile(file);
  const { bitmapDirectory } = new DamagedImage(file);
  for (const kept of [bitmapDirectory, bitmapDirectory + 20, bitmapDirectory + 26]) {
    await writeFile(file, whole);
    await truncate(file, kept);
    const { code, stdout, stderr } = await runCowherd(['info', name], folder);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^cowherd: warning: 'disk.qcow2': bitmaps_ext: [^\n]*\n$/);
    assert.match(stdout, /^image: disk.qcow2\n[^]*corrupt: false/);
    for (const words of [
      ['map', name],
      ['compare', name, name],
    ]) {
      assert.equal((await runCowherd(words, folder)).code, 0);
    }
  }
});

test('of header extensions the last counts, and a short feature name is a name', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await imageOf(t, 'cluster_size=64k');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', 'base.qcow2', '64M'], { cwd: folder });
  await runOk(
    'qemu-img',
    ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', name],
    { cwd: folder },
  );
  await damage(folder, (image) => {
    image.bytes.set(image.bytes.subarray(112, 4096 - 24), 112 + 24);
    addExtension(image, 112, 0xe2792aca, 'raw');
    image.change(8, (offset) => offset + 24n);
  });
  for (const words of commands) await assertSame(words, folder);
  await assertSame(['info', '--backing-chain', name], folder);
});

/** Writes an extension of 24 bytes, and what follows it. */
function addExtension(image: DamagedImage, at: number, type: number, text: string): void {
  image.bytes.fill(0, at, at + 24);
  image.bytes.writeUInt32BE(type, at);
  image.bytes.writeUInt32BE(text.length, at + 4);
  image.bytes.write(text, at + 8, 'latin1');
}

test('an unknown feature has the name of a last entry that is shorter than others', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await imageOf(t, 'cluster_size=64k');
  await damage(folder, (image) => {
    image.setFeatureBit(72, 63);
    image.bytes.fill(0, 112, 4096);
    addExtension(image, 112, 0x6803f857, '\0\x3fTest feature');
  });
  for (const words of commands) await assertSame(words, folder);
});

test('a repair clears autoclear bits that mean nothing to it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  for (const repair of ['leaks', 'all']) {
    const folder = await imageOf(t, 'cluster_size=64k');
    const file = path.join(folder, name);
    await damage(folder, (image) => {
      image.setFeatureBit(88, 63);
      image.setFeatureBit(88, 17);
    });
    await runCowherd(['check', name], folder);
    assert.notEqual((await readFile(file)).readBigUInt64BE(88), 0n);
    const { code } = await runCowherd(['check', '-r', repair, name], folder);
    assert.equal(code, 0);
    assert.equal((await readFile(file)).readBigUInt64BE(88), 0n);
  }
});

test('a file cut within its tables is found out in the order of the disk', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await imageOf(t, 'cluster_size=4k', 'write 0 12M');
  const file = path.join(folder, name);
  const { length } = await readFile(file);
  for (const kept of [length / 2, length / 3, length - 5000]) {
    await truncate(file, Math.floor(kept));
    await assertSame(['check', name], folder);
    await assertSame(['check', '--output=json', name], folder);
  }
});

test('advice names the program as it was called', () => {
  const text = 'You can force-remove this extra metadata with cowherd check -r all';
  assert.equal(adviceOf(text, 'qemu-img'), text.replace('cowherd', 'qemu-img'));
  assert.equal(adviceOf(text, 'cowherd'), text);
  assert.equal(
    adviceOf("Could not open 'with cowherd'", 'qemu-img'),
    "Could not open 'with cowherd'",
  );
});
