/** Images that are in use: what may be looked at, and built upon, as with qemu-img; and many who open at once. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { CowherdError } from '../../../src/errors.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { addon } from '../../../src/native/addon.js';
import { assertSame } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const skip = addon === undefined ? 'needs the addon' : false;

/** Has qemu-io hold an image for writing until the test ends. */
async function holdOpen(t: TestContext, file: string, format: string): Promise<void> {
  const holder = spawn('qemu-io', ['-f', format, file], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => holder.kill());
  holder.stdin.write('write 0 512\n');
  await once(holder.stdout, 'data');
}

test('images in use are described, mapped and built upon as with qemu-img', { skip }, async (t) => {
  if (!needsTool(t, 'qemu-img') || !needsTool(t, 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  for (const [name, format] of [
    ['vm.raw', 'raw'],
    ['vm.qcow2', 'qcow2'],
  ] as const) {
    await runOk('qemu-img', ['create', '-q', '-f', format, name, '8M'], { cwd: folder });
  }
  const above = ['create', '-q', '-f', 'qcow2', '-b', 'vm.raw', '-F', 'raw', 'above.qcow2'];
  await runOk('qemu-img', above, { cwd: folder });
  await holdOpen(t, path.join(folder, 'vm.raw'), 'raw');
  await holdOpen(t, path.join(folder, 'vm.qcow2'), 'qcow2');
  for (const words of [
    'map vm.raw',
    'map -f raw vm.raw',
    'map vm.qcow2',
    'map -U vm.qcow2',
    'map above.qcow2',
    'check vm.qcow2',
    'compare vm.raw above.qcow2',
    'create -q -f qcow2 -b vm.raw -F raw new.qcow2',
    'create -q -f qcow2 -b vm.qcow2 -F qcow2 new.qcow2',
    'convert -f raw -O raw vm.raw copy.raw',
    'convert -O raw vm.qcow2 copy.raw',
  ]) {
    await t.test(words, async () => {
      await assertSame(words.split(' '), folder);
    });
  }
});

test(
  'of several that open an image at the same time, one after the other gets it',
  { skip },
  async (t) => {
    const file = path.join(await temporaryFolder(t), 'disk.qcow2');
    await createImage(file, { format: 'qcow2', size: '8M' });
    let owners = 0;
    let won = 0;
    const opener = async (): Promise<void> => {
      for (let time = 0; time < 8; time++) {
        try {
          const image = await openImage(file);
          assert.equal(++owners, 1, 'two have it open for writing');
          won++;
          await image.write(new Uint8Array(512), 0);
          owners--;
          await image.close();
        } catch (error) {
          if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_LOCKED') throw error;
        }
      }
    };
    await Promise.all([opener(), opener(), opener()]);
    t.diagnostic(`${won} of 24 tries`);
    assert.ok(won >= 6, `${won} of 24 tries`);
  },
);
