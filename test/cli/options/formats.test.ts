/** Images of every format, told by their bytes, and read. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { recogniseFormat } from '../../../src/format/registry.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

/** Images that the real tool makes, by the name of their format. */
const real: readonly (readonly [format: string, ...options: string[]])[] = [
  ['vmdk'],
  ['vmdk', '-o', 'subformat=monolithicFlat'],
  ['vmdk', '-o', 'subformat=twoGbMaxExtentSparse'],
  ['vmdk', '-o', 'subformat=twoGbMaxExtentFlat'],
  ['vmdk', '-o', 'subformat=streamOptimized'],
  ['vdi'],
  ['vdi', '-o', 'static=on'],
  ['vhdx'],
  ['vhdx', '-o', 'subformat=fixed'],
  ['vpc'],
  ['qed'],
  ['qcow'],
  ['parallels'],
];

/** Images that QEMU cannot make, by their first bytes, or their last. */
function handMade(): readonly (readonly [format: string, bytes: Buffer])[] {
  const bochs = Buffer.alloc(4096);
  bochs.write('Bochs Virtual HD Image', 0);
  bochs.write('Redolog', 32);
  bochs.write('Growing', 48);
  bochs.writeUInt32LE(0x00020000, 64);
  const cloop = Buffer.alloc(4096);
  cloop.write(
    '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n',
  );
  const dmg = Buffer.alloc(4096);
  dmg.write('koly', 3584);
  dmg.writeUInt32BE(4, 3588);
  dmg.writeUInt32BE(512, 3592);
  const vmdk = Buffer.alloc(4096);
  vmdk.write('COWD');
  const text = Buffer.from('# Disk DescriptorFile\r\n \r\n# more\nversion=3\r\nCID=1\n');
  return [
    ['bochs', bochs],
    ['cloop', cloop],
    ['dmg', dmg],
    ['vmdk', vmdk],
    ['vmdk', text],
  ];
}

/** Both map the disk alike; where its bytes lie is told of some formats here only. */
async function sameMap(format: string, folder: string): Promise<void> {
  if (format !== 'vhdx') {
    await assertSame(['map', '--output=json', 'disk'], folder);
    await assertSame(['map', 'disk'], folder);
    return;
  }
  const [real, ours] = [
    await runQemuImg(['map', '--output=json', 'disk'], folder),
    await runCowherd(['map', '--output=json', 'disk'], folder),
  ].map(({ stdout }) => JSON.parse(stdout) as { start: number; length: number }[]);
  const end = (extents: typeof real): number => extents.at(-1)!.start + extents.at(-1)!.length;
  assert.equal(end(ours), end(real));
}

for (const [format, ...options] of real) {
  test(`a real image is told by its bytes, and read: ${format} ${options.join(' ')}`, async (t) => {
    if (!needsTool(t, 'qemu-img') || !needsTool(t, 'qemu-io')) return;
    const folder = await temporaryFolder(t);
    await runOk('qemu-img', ['create', '-q', '-f', format, ...options, 'disk', '5M'], {
      cwd: folder,
    });
    if (!options.includes('subformat=streamOptimized')) {
      const writes = ['write -P 1 0 64k', 'write -P 2 1m 1m', 'write -P 3 4999k 3k'];
      const words = writes.flatMap((write) => ['-c', write]);
      await runOk('qemu-io', ['-f', format, ...words, 'disk'], { cwd: folder });
    }
    await assertSame(['info', 'disk'], folder);
    await assertSame(['info', '--output=json', 'disk'], folder);
    await sameMap(format, folder);
    await assertSame(['compare', '-f', format, 'disk', 'disk'], folder);
    await runOk('qemu-img', ['convert', '-O', 'raw', 'disk', 'expected.raw'], { cwd: folder });
    for (const target of ['raw', 'qcow2']) {
      const { code, stderr } = await runCowherd(['convert', '-O', target, 'disk', 'out'], folder);
      assert.equal(code, 0, stderr);
      await runOk('qemu-img', ['compare', 'expected.raw', 'out'], { cwd: folder });
    }
    const written = await runCowherd(['bench', '-w', '-c', '1', '-f', format, 'disk'], folder);
    const isWritten = written.code === 0;
    if (!isWritten)
      assert.match(written.stderr, /can only be read|cannot|written once|take whole grains/);
  });
}

test('what begins as an image and is none is refused as the real tool refuses it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  for (const [format, bytes] of handMade()) {
    await t.test(format, async (t) => {
      const folder = await temporaryFolder(t);
      await writeFile(path.join(folder, 'disk'), bytes);
      const real = await runQemuImg(['info', 'disk'], folder);
      const ours = await runCowherd(['info', 'disk'], folder);
      // The real tool takes what describes nothing for a disk without any bytes.
      assert.equal(ours.code, format === 'dmg' ? 1 : real.code, ours.stderr);
      assert.match(ours.stderr, /^cowherd: Could not open 'disk': [^\n]*\n$/);
    });
  }
});

test('what only resembles an image is raw, as the real tool has it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk');
  const almost: Buffer[] = [
    Buffer.from('QFI\xfb\0\0\0\0', 'latin1'),
    Buffer.from('LUKS\xba\xbe\0\x02', 'latin1'),
    Buffer.from('WithoutFreeSpace\x01\0\0\0', 'latin1'),
    Buffer.from('Bochs Virtual HD Image'),
    Buffer.from('# a comment\nversion=4\n'),
    Buffer.from('#!/bin/sh\n#V2.0 Format\n'),
    Buffer.from('conectiX'),
    Buffer.from('vhdxFile'),
    Buffer.from('version=1'),
    Buffer.from('\nversion=1\n'),
  ];
  for (const begin of almost) {
    const bytes = Buffer.alloc(4096);
    begin.copy(bytes);
    await writeFile(file, bytes);
    assert.equal(recogniseFormat(bytes.subarray(0, 512)), undefined, begin.toString('latin1'));
    await assertSame(['info', '--output=json', 'disk'], folder);
  }
});

test('a disk that was probed to be raw cannot become any of them', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk');
  for (const [format, bytes] of handMade()) {
    if (format === 'dmg') continue;
    await rm(file, { force: true });
    await createImage(file, { format: 'raw', size: 1 << 20 });
    const image = await openImage(file);
    await assert.rejects(image.write(bytes, 0), { code: 'ERR_COWHERD_INVALID_ARGUMENT' });
    await image.close();
  }
});

test('formats that are named and not known', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await createImage(path.join(folder, 'a'), { format: 'raw', size: 1 << 20 });
  for (const words of [
    ['create', '-f', 'bochs', '-o', 'help'],
    ['convert', '-O', 'bochs', '-o', 'help'],
    ['create', '-f', 'bochs', 'x', '1M'],
    ['create', '-f', 'vvfat', 'x', '1M'],
    ['create', '-f', 'nonsense', 'x', '1M'],
    ['info', '-f', 'bochs', 'a'],
    ['info', '-f', 'qed', 'a'],
    ['map', '-f', 'qcow', 'a'],
    ['check', '-f', 'parallels', 'a'],
    ['info', '-f', 'nonsense', 'a'],
  ]) {
    await assertSame(words, folder);
  }
  for (const format of new Set(real.map(([name]) => name))) {
    // The real tool says no more than `Invalid argument` there.
    if (format === 'vhdx') continue;
    await assertSame(['info', '-f', format, 'a'], folder);
  }
});
