/** Conversions that the host carries out: blocks are shared where they can be, ranges copied where asked. */
import assert from 'node:assert/strict';
import { open, statfs, truncate, writeFile } from 'node:fs/promises';
import { randomFillSync } from 'node:crypto';
import path from 'node:path';
import { test } from 'node:test';
import { addon } from '../../src/native/addon.js';
import { convert } from '../../src/jobs/convert.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';
import { xfsFolder } from '../support/xfs-folder.js';

const mib = 1024 * 1024;
const dataMib = 48;

/** A disk of which some is data, some of that zeroes, and whose end is no block's. */
async function disk(folder: string): Promise<string> {
  const file = path.join(folder, 'disk.raw');
  await writeFile(file, '');
  await truncate(file, 100 * mib + 777);
  const handle = await open(file, 'r+');
  const data = randomFillSync(Buffer.alloc(dataMib * mib)).fill(0, 5 * mib, 7 * mib);
  await handle.write(data, 0, data.length, 20 * mib);
  await handle.write('end', 100 * mib + 700);
  await handle.sync();
  await handle.close();
  return file;
}

async function usedBytes(folder: string): Promise<number> {
  await runOk('sync', ['-f', folder]);
  const { blocks, bfree, bsize } = await statfs(folder);
  return (blocks - bfree) * bsize;
}

test('raw to raw shares blocks on a file system that can', async (t) => {
  if (!needsTool(t, 'qemu-img', 'mkfs.xfs', 'sync')) return;
  if (addon === undefined) {
    t.skip('needs the addon');
    return;
  }
  const folder = await xfsFolder(t);
  if (folder === undefined) return;
  const source = await disk(folder);
  for (const [name, options, isShared] of [
    ['as it is', {}, true],
    ['copies offloaded', { copyOffload: true }, true],
    ['zeroes looked for', { sparseSize: 4096 }, false],
    ['in any order', { outOfOrder: true }, false],
  ] as const) {
    const target = path.join(folder, `${name}.raw`);
    const before = await usedBytes(folder);
    await convert(source, target, { from: 'raw', to: 'raw', ...options });
    const grown = (await usedBytes(folder)) - before;
    if (isShared) assert.ok(grown < 4 * mib, `${name}: ${grown} bytes were copied`);
    else assert.ok(grown > (dataMib - 4) * mib, `${name}: only ${grown} bytes were copied`);
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, target]);
  }
});

test('offloaded copies hold what others do, whatever they are made of', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const raw = await disk(folder);
  const inFolder = (name: string): string => path.join(folder, name);
  const plain = inFolder('plain.qcow2');
  const packed = inFolder('packed.qcow2');
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, plain]);
  await runOk('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, packed]);
  for (const [source, from] of [
    [raw, 'raw'],
    [plain, 'qcow2'],
    [packed, 'qcow2'],
  ] as const) {
    for (const to of ['raw', 'qcow2'] as const) {
      const target = inFolder(`target.${to}`);
      await convert(source, target, { from, to, copyOffload: true });
      await runOk('qemu-img', ['compare', '-f', from, '-F', to, source, target]);
    }
  }
});

test('offloading is refused where it contradicts what else is asked for', async (t) => {
  const folder = await temporaryFolder(t);
  const source = await disk(folder);
  for (const [options, message] of [
    [{ sparseSize: 4096 }, /copy offloading when -S is used/],
    [{ compress: true, to: 'qcow2' }, /copy offloading when -c is used/],
    [{ salvage: true }, /copy offloading in salvaging mode/],
  ] as const) {
    const converting = convert(source, path.join(folder, 'target'), {
      copyOffload: true,
      ...options,
    });
    await assert.rejects(converting, message);
  }
});
