/** The header's count of a VDI image's blocks, which other programs give out as the next place. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

const mib = 1024 * 1024;

/** A file of which some writes of data fail, after a part of them. */
class FailingFile extends MemoryFile {
  fails = false;

  override async writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    if (this.fails) {
      await super.writeVector([new Uint8Array(4096).fill(0xee)], offset);
      throw new Error('the device failed');
    }
    await super.writeVector(buffers, offset);
  }
}

test('a place whose data could not be written is given out again', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const name = path.join(folder, 'disk.vdi');
  await createImage(name, { format: 'vdi', size: 8 * mib });
  const content = new MemoryContent();
  content.write(await readFile(name), 0);
  const file = new FailingFile(name, { content });
  const image = await openImageOn(file, { format: 'vdi' });
  const model = Buffer.alloc(8 * mib);
  const write = async (fill: number, at: number): Promise<void> => {
    await image.write(new Uint8Array(3000).fill(fill), at);
    model.fill(fill, at, at + 3000);
  };
  await write(1, 5 * mib + 700);
  file.fails = true;
  await assert.rejects(
    image.write(new Uint8Array(2 * mib + 100).fill(9), mib),
    /the device failed/,
  );
  file.fails = false;
  await write(2, 7 * mib + 700);
  await image.flush();
  await write(3, 3 * mib);
  await image.close();
  const bytes = new Uint8Array(content.size);
  content.read(bytes, 0);
  await writeFile(name, bytes);
  const check = await run('qemu-img', ['check', name]);
  assert.equal(check.code, 0, check.stdout + check.stderr);
  await writeFile(`${name}.raw`, model);
  const compare = await run('qemu-img', ['compare', '-F', 'raw', name, `${name}.raw`]);
  assert.equal(compare.code, 0, compare.stdout);
});

test('places that nothing names, as a power cut leaves them, are filled first', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const name = path.join(folder, 'disk.vdi');
  await createImage(name, { format: 'vdi', size: 8 * mib });
  const image = await openImage(name);
  for (const block of [0, 1, 2, 3]) await image.write(Buffer.alloc(mib, 1 + block), block * mib);
  await image.close();
  // Two entries are lost: the header counts more than there are.
  const bytes = await readFile(name);
  const map = bytes.readUInt32LE(0x154);
  for (const block of [1, 3]) bytes.writeUInt32LE(0xffffffff, map + block * 4);
  await writeFile(name, bytes);
  assert.equal((await run('qemu-img', ['check', name])).code, 2);
  const again = await openImage(name);
  await again.write(Buffer.alloc(512, 7), 6 * mib + 1024);
  await again.write(Buffer.alloc(512, 8), 5 * mib);
  await again.close();
  const check = await run('qemu-img', ['check', name]);
  assert.equal(check.code, 0, check.stdout);
  const expected = Buffer.alloc(8 * mib);
  expected.fill(1, 0, mib);
  expected.fill(3, 2 * mib, 3 * mib);
  expected.fill(7, 6 * mib + 1024, 6 * mib + 1536);
  expected.fill(8, 5 * mib, 5 * mib + 512);
  await writeFile(`${name}.raw`, expected);
  const compare = await run('qemu-img', ['compare', '-F', 'raw', name, `${name}.raw`]);
  assert.equal(compare.code, 0, compare.stdout);
});
