/** What a file has no blocks for is not read, and is zeroes in the target, whatever the format says of it. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { addon } from '../../src/native/addon.js';
import { convert } from '../../src/jobs/convert.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;

test('holes within the data of an image are not read', async (t) => {
  if (addon === undefined) {
    t.skip('Node alone finds no holes');
    return;
  }
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const raw = path.join(folder, 'disk.raw');
  const disk = await open(raw, 'w');
  await disk.truncate(64 * mib);
  for (let at = 0; at < 64; at += 4) await disk.write(randomBytes(mib), 0, mib, at * mib);
  await disk.close();
  const dataBytes = 16 * mib;
  for (const [format, options] of [
    ['vhdx', []],
    ['vpc', ['-o', 'subformat=dynamic']],
    ['vpc', ['-o', 'subformat=fixed,force_size=on']],
    ['qcow2', ['-o', 'preallocation=metadata']],
  ] as const) {
    const source = path.join(folder, 'source');
    await runOk('qemu-img', ['convert', '-O', format, ...options, raw, source]);
    for (const to of ['raw', 'qcow2']) {
      const target = path.join(folder, 'target');
      let readBytes = 0;
      await convert(source, target, {
        ...{ from: format, to },
        onStats: (_target, [{ total }]) => (readBytes = total.bytesRead),
      });
      await runOk('qemu-img', ['compare', '-f', to, '-F', 'raw', target, raw]);
      const what = `${format} to ${to}: ${readBytes} bytes read, ${(await stat(target)).blocks}`;
      assert.ok(readBytes < dataBytes + 4 * mib, what);
      assert.ok((await stat(target)).blocks * 512 < dataBytes + 2 * mib, what);
    }
  }
});
