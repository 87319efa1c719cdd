/** The portable backend's handles: of the file that is open, whatever has its name by now. */
import assert from 'node:assert/strict';
import { rename, readFile, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { attachFileNode, openFileNode } from '../../../src/storage/file/file-node.js';
import { temporaryFolder } from '../../support/tools.js';

for (const what of ['renamed', 'removed'] as const) {
  test(`a handle of a file that was ${what} is not one of its successor`, async (t) => {
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'file');
    await writeFile(file, 'first');
    const opened = await openFileNode(file, {});
    if (what === 'renamed') await rename(file, path.join(folder, 'moved'));
    else await unlink(file);
    await writeFile(file, 'other');
    if (process.platform !== 'linux') {
      await assert.rejects(attachFileNode(opened.handle()), { code: 'ERR_COWHERD_CLOSED' });
      await opened.close();
      return;
    }
    const attached = await attachFileNode(opened.handle());
    await attached.write(Buffer.from('third'), 0);
    const found = new Uint8Array(5);
    await opened.read(found, 0);
    assert.equal(Buffer.from(found).toString(), 'third');
    assert.equal(await readFile(file, 'utf8'), 'other');
    assert.equal(attached.filename, file);
    await attached.close();
    await opened.close();
  });
}

test('a handle of a file that nobody has open any more is refused', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'file');
  await writeFile(file, 'first');
  const opened = await openFileNode(file, {});
  const handle = opened.handle();
  await opened.close();
  await unlink(file);
  await writeFile(path.join(folder, 'keeps-the-inode-from-being-used-again'), '');
  await writeFile(file, 'other');
  await assert.rejects(attachFileNode(handle), { code: 'ERR_COWHERD_CLOSED' });
});
