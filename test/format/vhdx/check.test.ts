/** Checking VHDX images as qemu-img does it, and replaying their logs. */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { contentByQemu, pattern } from './referee.js';
import {
  type BuiltImage,
  type BuiltWrite,
  contentOf,
  entryAt,
  logEntry,
  logWith,
  place,
  vhdxImage,
} from './vhdx-builder.js';

const mib = 1024 * 1024;
const logId = '11111111-2222-3333-4444-555555555555';

const image: BuiltImage = {
  size: 5 * mib,
  blockSize: mib,
  sectorSize: 512,
  blocks: [
    { index: 0, state: 6, data: pattern(1, mib) },
    { index: 3, state: 6, data: pattern(2, mib) },
    { index: 1, state: 6, data: pattern(3, mib) },
  ],
};
const length = place.blocks + 3 * mib;

for (const [what, at, entry, says] of [
  ['a block beyond the end of the file', 0, 256 * mib + 6, 'start offset 268435456 points after'],
  ['a block at its end', 1, length + 6, `start offset ${length} points after`],
  ['a block over the metadata', 3, place.metadata + 6, 'VHDX region 2097152-3145728 overlaps'],
] as const) {
  test(`${what} is found, and left`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.vhdx');
    const bytes = vhdxImage(image);
    bytes.writeBigUInt64LE(BigInt(entry), entryAt(image, at));
    await writeFile(file, bytes);
    // That one begins a line with its name.
    for (const words of [[], ['--output=json'], ['-r', 'all']]) {
      const command = ['check', '-f', 'vhdx', ...words, 'disk.vhdx'];
      const { stderr } = await assertSame(command, folder, { stderr: false });
      const byQemu = await runQemuImg(command, folder);
      assert.equal(`cowherd: ${stderr}`, byQemu.stderr);
      assert.ok(stderr.includes(says), stderr);
    }
    assert.ok((await readFile(file)).equals(bytes));
    await assert.rejects(openImage(file, { format: 'vhdx', readOnly: true }), /VHDX (BAT|region)/);
  });
}

test('two blocks at one place, which QEMU does not look for', async (t) => {
  const folder = await temporaryFolder(t);
  const bytes = vhdxImage(image);
  bytes.writeBigUInt64LE(BigInt(place.blocks + mib + 6), entryAt(image, 1));
  await writeFile(path.join(folder, 'disk.vhdx'), bytes);
  const { code, stderr } = await runCowherd(['check', '-f', 'vhdx', 'disk.vhdx'], folder);
  const where = `offset ${place.blocks + mib} is where another block lies`;
  assert.deepEqual([code, stderr], [2, `VHDX BAT entry 3 ${where}\n`]);
});

test('a file that was cut off', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.vhdx'), vhdxImage(image).subarray(0, length - 700_000));
  await assertSame(['check', '-f', 'vhdx', 'disk.vhdx'], folder, { stderr: false });
});

/** The table as it is once all blocks are known. */
function tableSector(): Buffer {
  const sector = Buffer.alloc(4096);
  for (const [order, { index, state }] of image.blocks.entries()) {
    sector.writeBigUInt64LE(BigInt(place.blocks + order * mib + state), index * 8);
  }
  return sector;
}

/** A file whose log knows of a block that the table does not. */
function unclosed(writes: readonly BuiltWrite[]): Buffer {
  const entry = logEntry({ logId, sequenceNumber: 1, tail: 0, writes, flushedLength: length });
  const file = vhdxImage({ ...image, logId, log: logWith([[0, entry]]) });
  file.writeBigUInt64LE(0n, entryAt(image, 1));
  return file;
}

test('a log that waits is found, and replayed by a repair', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vhdx');
  const bytes = unclosed([
    { offset: place.table, zeroes: 8192 },
    { offset: place.table, data: tableSector() },
  ]);
  await writeFile(file, bytes);
  const words = ['check', '-f', 'vhdx', 'disk.vhdx'];
  const found = await runCowherd(words, folder);
  assert.equal(found.code, 2);
  assert.match(found.stderr, /^ERROR image was not closed correctly, and its log needs to be repl/);
  assert.match(
    (await runCowherd([...words, '--explain'], folder)).stderr,
    /\n {2}The program that/,
  );
  assert.ok((await readFile(file)).equals(bytes), 'nothing is written');

  for (const repair of ['leaks', 'all']) {
    await writeFile(file, bytes);
    await copyFile(file, path.join(folder, 'theirs.vhdx'));
    const repaired = await runCowherd([...words, '-r', repair], folder);
    const byQemu = await runQemuImg(['check', '-f', 'vhdx', '-r', repair, 'theirs.vhdx'], folder);
    assert.deepEqual([repaired.code, repaired.stdout], [byQemu.code, byQemu.stdout]);
    await assertSame(words, folder);
    assert.ok((await contentByQemu(file, 'vhdx')).equals(contentOf(image)));
    await runOk('qemu-img', ['compare', 'disk.vhdx', 'theirs.vhdx'], { cwd: folder });
    await using opened = await openImage(file, { format: 'vhdx' });
    assert.equal((await opened.info()).dirtyFlag, false);
  }
});
