/** A part of a file as a file of its own, and raw images that are one, as the real tool has them. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { attachImage } from '../../../src/image/threads/attach.js';
import { openImage } from '../../../src/image/graph/open.js';
import { WindowFile } from '../../../src/storage/filters/window.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { assertSame } from '../../support/both-tools.js';
import { needsTool, temporaryFolder } from '../../support/tools.js';

test('reads end with the window, writes stay within it', async () => {
  const content = new MemoryContent();
  content.write(
    Uint8Array.from({ length: 4096 }, (_, at) => at & 0xff),
    0,
  );
  const whole = new MemoryFile('whole', { content });
  const name = { protocol: 'memory', filename: 'part' };
  const file = new WindowFile(whole, name, { start: 100, length: 1000 });
  assert.equal(await file.size(), 1000);
  const bytes = new Uint8Array(1200).fill(0xee);
  await file.read(bytes, 0);
  assert.deepEqual([bytes[0], bytes[999], bytes[1000], bytes[1199]], [100, 1099 & 0xff, 0, 0]);
  await file.write(new Uint8Array(10).fill(7), 990);
  await assert.rejects(file.write(new Uint8Array(11), 990), { code: 'ERR_COWHERD_NO_SPACE' });
  await assert.rejects(file.writeVector([new Uint8Array(1)], 1000), {
    code: 'ERR_COWHERD_NO_SPACE',
  });
  await assert.rejects(file.truncate(1001), { code: 'ERR_COWHERD_NO_SPACE' });
  await file.writeVector([new Uint8Array(5).fill(8), new Uint8Array(5).fill(9)], 0);
  const [first, second] = [new Uint8Array(5), new Uint8Array(7)];
  await file.readVector([first, second], 0);
  assert.deepEqual([...first, ...second], [8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 110, 111]);
  const all = new Uint8Array(4096);
  content.read(all, 0);
  assert.deepEqual([all[99], all[100], all[1099], all[1100]], [99, 8, 7, 1100 & 0xff]);
  assert.deepEqual(file.place(5), { file: whole, offset: 105 });
  await file.close();
});

test('a raw image that is a part of its file, through every command', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const bytes = Uint8Array.from({ length: 3 << 20 }, (_, at) =>
    at < 1 << 20 ? 0 : (at * 7 + (at >> 9)) & 0xff,
  );
  await writeFile(path.join(folder, 'disk.raw'), bytes);
  for (const part of ['offset=512', 'offset=1M,size=512k', 'size=64k', 'offset=3M']) {
    const name = `driver=raw,file.filename=disk.raw,${part}`;
    await assertSame(['map', '--output=json', '--image-opts', name], folder);
    await assertSame(['convert', '--image-opts', '-O', 'raw', name, 'out.raw'], folder);
    await assertSame(['compare', '--image-opts', name, 'driver=raw,file.filename=out.raw'], folder);
  }
  for (const part of ['size=1000', 'offset=4M', 'offset=512,size=3M']) {
    const name = `driver=raw,file.filename=disk.raw,${part}`;
    await assertSame(['info', '--image-opts', name], folder);
  }
});

test('a part is written to, and opened on other threads', async (t) => {
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk.raw');
  await writeFile(disk, new Uint8Array(8192));
  const image = await openImage(disk, { format: 'raw', window: { offset: 1024, size: 2048 } });
  assert.equal(image.size, 2048);
  await image.write(new Uint8Array(512).fill(5), 1536);
  const attached = await attachImage(image.handle());
  const read = new Uint8Array(2048);
  await attached.read(read, 0);
  assert.equal(read[1536], 5);
  await attached.close();
  await assert.rejects(image.write(new Uint8Array(512), 2048), {
    code: 'ERR_COWHERD_OUT_OF_RANGE',
  });
  await image.close();
  const all = await readFile(disk);
  assert.equal(all.length, 8192);
  assert.deepEqual([all[2559], all[2560], all[3071], all[3072]], [0, 5, 5, 0]);
  await assert.rejects(openImage(disk, { format: 'qcow2', window: { offset: 0 } }), {
    code: 'ERR_COWHERD_UNSUPPORTED',
  });
});
