/**
 * Images that say which image they were made over: another one below is refused, and what is written to has
 * another identity from then on.
 */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { OpenImageOptions } from '../../../src/image/api/options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { differencingImage } from '../../format/vpc/vhd-builder.js';
import { vhdxImage } from '../../format/vhdx/vhdx-builder.js';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const mib = 1024 * 1024;

/** A parent, a copy of it that was changed, and what makes the child over it. */
interface Family {
  readonly format: string;
  readonly makeChild: (parent: Buffer, parentName: string) => Buffer;
}

/** The current header's GUID of the data of a VHDX file, as text in braces. */
function dataWriteId(file: Buffer): string {
  const [one, other] = [64 * 1024, 128 * 1024];
  const at = file.readBigUInt64LE(one + 8) > file.readBigUInt64LE(other + 8) ? one : other;
  const hex = (from: number, length: number, isReversed: boolean): string => {
    const bytes = Buffer.from(file.subarray(at + 32 + from, at + 32 + from + length));
    return (isReversed ? bytes.reverse() : bytes).toString('hex');
  };
  const groups = [hex(0, 4, true), hex(4, 2, true), hex(6, 2, true), hex(8, 2, false)];
  return `{${groups.join('-')}-${hex(10, 6, false)}}`;
}

const families: readonly Family[] = [
  {
    format: 'vhdx',
    makeChild: (parent, parentName) =>
      vhdxImage({
        size: 4 * mib,
        blockSize: mib,
        sectorSize: 512,
        parent: { relative_path: parentName, parent_linkage: dataWriteId(parent) },
        blocks: [{ index: 1, state: 6, data: Buffer.alloc(mib, 0x77) }],
      }),
  },
  {
    format: 'vhdx',
    makeChild: (parent, parentName) =>
      vhdxImage({
        size: 4 * mib,
        blockSize: mib,
        sectorSize: 512,
        parent: {
          parent_linkage: '{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}',
          parent_linkage2: dataWriteId(parent),
          relative_path: parentName,
        },
        blocks: [{ index: 1, state: 6, data: Buffer.alloc(mib, 0x77) }],
      }),
  },
  {
    format: 'vpc',
    makeChild: (parent, parentName) =>
      differencingImage({
        size: 4 * mib,
        blockSize: 2 * mib,
        blocks: [],
        locators: [{ code: 'W2ru', data: Buffer.from(parentName, 'utf16le') }],
        parentName: '',
        parentId: parent.subarray(68, 84),
      }),
  },
];

/** Asserts that an image is refused for what is below it, in one line that names both. */
async function assertStranger(file: string, options: OpenImageOptions): Promise<void> {
  await assert.rejects(openImage(file, { ...options, readOnly: true }), (error: Error) => {
    assert.equal(Reflect.get(error, 'code'), 'ERR_COWHERD_BACKING');
    assert.match(error.message, /^Could not open '[^\n]*child': the backing file '[^\n]*parent'/);
    assert.match(error.message, /is another one than the image was made over, or was changed/);
    return true;
  });
}

for (const [index, { format, makeChild }] of families.entries()) {
  test(`a child of another parent is refused: ${format} ${index}`, async (t) => {
    const folder = await temporaryFolder(t);
    const parent = path.join(folder, 'parent');
    const file = path.join(folder, 'child');
    await createImage(parent, { format, size: 4 * mib });
    await writeFile(file, makeChild(await readFile(parent), 'parent'));
    // Opening the parent for writing changes nothing, and neither does reading it.
    await (await openImage(parent, { format })).close();
    {
      await using image = await openImage(file, { format, readOnly: true });
      await image.read(Buffer.alloc(4 * mib), 0);
    }

    await createImage(parent, { format, size: 4 * mib });
    await assertStranger(file, { format });
    // Whoever does not ask for what is below gets the rest.
    await using alone = await openImage(file, { format, readOnly: true, backing: 'ignore' });
    await alone.read(Buffer.alloc(512), mib);
  });
}

test('a linkage of nonsense is told in one line', async (t) => {
  const folder = await temporaryFolder(t);
  await createImage(path.join(folder, 'parent'), { format: 'vhdx', size: 4 * mib });
  const file = path.join(folder, 'child');
  const parent = { relative_path: 'parent', parent_linkage: `{a\n\u001b${'b'.repeat(20_000)}` };
  const image = { size: 4 * mib, blockSize: mib, sectorSize: 512, parent, blocks: [] };
  await writeFile(file, vhdxImage(image));
  await assertStranger(file, { format: 'vhdx' });
  await assert.rejects(openImage(file, { format: 'vhdx', readOnly: true }), {
    message: /^\P{Cc}{1,400}$/u,
  });
});

test('a parent that was written to is another one: VHDX', async (t) => {
  const folder = await temporaryFolder(t);
  const parent = path.join(folder, 'parent');
  const file = path.join(folder, 'child');
  await createImage(parent, { format: 'vhdx', size: 4 * mib });
  await writeFile(file, families[0].makeChild(await readFile(parent), 'parent'));
  {
    await using image = await openImage(parent, { format: 'vhdx' });
    await image.write(Buffer.alloc(512, 1), 0);
  }
  await assertStranger(file, { format: 'vhdx' });
});

/** A parent and a child of QEMU's making. */
async function makeVmdk(folder: string, subformat: string): Promise<void> {
  const options = ['create', '-q', '-f', 'vmdk', '-o', `subformat=${subformat}`];
  await runOk('qemu-img', [...options, 'parent', '4M'], { cwd: folder });
  await runOk('qemu-io', ['-f', 'vmdk', '-c', 'write -P 7 0 64k', 'parent'], { cwd: folder });
  const words = ['create', '-q', '-f', 'vmdk', '-b', 'parent', '-F', 'vmdk', 'child'];
  await runOk('qemu-img', words, { cwd: folder });
}

for (const subformat of ['monolithicSparse', 'monolithicFlat']) {
  test(`a parent that was written to is another one, to QEMU too: VMDK ${subformat}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const folder = await temporaryFolder(t);
    await makeVmdk(folder, subformat);
    const parent = path.join(folder, 'parent');
    await (await openImage(parent, { format: 'vmdk' })).close();
    await assertSame(['compare', 'parent', 'child'], folder);
    const before = await readFile(parent);
    {
      await using image = await openImage(parent, { format: 'vmdk' });
      await image.write(Buffer.alloc(512, 8), 0);
      const after = await readFile(parent);
      const textOf = (bytes: Buffer): string =>
        /CID=([0-9a-f]+)/.exec(bytes.toString('latin1'))![1];
      assert.notEqual(textOf(after), textOf(before));
      assert.equal(textOf(after).length, textOf(before).length);
      await image.write(Buffer.alloc(512, 9), 512);
      assert.equal(textOf(await readFile(parent)), textOf(after), 'once');
    }
    await assertStranger(path.join(folder, 'child'), { format: 'vmdk' });
    const byQemu = await run('qemu-img', ['convert', '-O', 'raw', 'child', 'out'], { cwd: folder });
    assert.equal(byQemu.code, 1, 'QEMU refuses to read it as well');
    await runOk('qemu-img', ['check', 'parent'], { cwd: folder });
  });
}

test('commands on a child whose parent is another one', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  await makeVmdk(folder, 'monolithicSparse');
  const whole = await runCowherd(['convert', '-O', 'raw', 'child', 'out.raw'], folder);
  assert.equal(whole.code, 0, whole.stderr);
  await copyFile(path.join(folder, 'parent'), path.join(folder, 'kept'));
  await runOk('qemu-io', ['-f', 'vmdk', '-c', 'write 1M 64k', 'parent'], { cwd: folder });
  await assertSame(['info', '--backing-chain', '--output=json', 'child'], folder);
  for (const [words, code] of [
    [['convert', '-O', 'raw', 'child', 'out.raw'], 1],
    [['compare', 'child', 'out.raw'], 2],
    [['map', 'child'], 1],
  ] as const) {
    const { code: found, stderr } = await runCowherd(words, folder);
    assert.equal(found, code, words.join(' '));
    assert.match(
      stderr,
      /^cowherd: Could not open 'child': the backing file 'parent' is [^\n]*\n$/,
    );
    // It gives up later, when it reads.
    if (words[0] !== 'map') assert.ok((await runQemuImg(words, folder)).code > 0);
  }
  await copyFile(path.join(folder, 'kept'), path.join(folder, 'parent'));
  await assertSame(['compare', 'child', 'parent'], folder);
});
